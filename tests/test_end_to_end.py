"""The whole method through its commands: real clips, real processes, the demo's own script at a very small size."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from commands import environment, run_of, train, warm
from report_runs import unpacked

PARTS = {"format", "answer", "explanation", "total"}


def test_the_script_prints_the_table_and_where_the_page_is(demo):
    printed = (demo / "printed").read_text()
    for arm in ("sft", "grpo", "grpo_erv"):
        assert f"| {arm} " in printed
    assert "iter 1/4 reward " in printed  # progress of what runs side by side
    page = Path(printed.splitlines()[-1].split(": ")[1])
    assert len(unpacked(page.read_text(), "data")["clips"]) == 4
    assert (demo / "runs" / "demo.md").read_text().splitlines()[0] in printed


def test_a_runs_folder_holds_everything_that_is_derived_from(demo):
    folder = run_of(demo, "grpo_erv")
    for name in (
        "config.yaml",
        "overrides.yaml",
        "env.json",
        "checkpoints/step-00000004.ckpt",
        "clips.jsonl",
        "model/config.json",
    ):
        assert (folder / name).exists(), name
    metrics = json.loads((folder / "metrics.json").read_text())
    assert (metrics["arm"], metrics["seed"], metrics["clips"]) == ("grpo_erv", 0, 4)
    rows = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
    assert len(rows) == 4 * (2 + 1)  # two samples and a greedy answer
    for row in rows:  # an answer without an explanation has none to be judged
        assert row["verdicts"][0]["status"] == ("ok" if (row["think"] or "").strip() else "off_list")
        assert set(row["rewards"]) == PARTS
    table = pq.read_table(folder / "completions.parquet").to_pylist()
    assert len(table) == 4 * 16 * 8  # iterations, clips, answers
    assert {row["iter"] for row in table} == {1, 2, 3, 4}
    assert all(abs(sum(r["advantage"] for r in table[i : i + 8])) < 1e-2 for i in range(0, len(table), 8))
    curves = (folder / "logs" / "version_0" / "metrics.csv").read_text().splitlines()[0].split(",")
    names = {"iter", "train/reward", "train/rewards/explanation/mean", "train/frac_reward_zero_std", "train/kl",
             "train/completions/mean_length", "dev/fcr", "dev/verifier_reward", "dev/judge_reward"}  # fmt: skip
    assert names <= set(curves)
    assert "step" in curves  # Lightning's own axis; no metric of ours has that name


def test_report_prints_one_object_per_run(demo):
    # named one by one: other tests share this folder and may have left runs of their own in it
    arms = [f"runs/demo/{arm}" for arm in ("sft", "grpo", "grpo_erv")]
    command = [sys.executable, "-m", "erv.report", *arms, "--json"]
    done = subprocess.run(command, cwd=demo, env=environment(demo), capture_output=True, text=True, check=True)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["arm"] for row in rows] == ["sft", "grpo", "grpo_erv"]


def test_what_is_done_is_not_done_again(demo):
    before = run_of(demo, "sft").stat().st_mtime_ns
    done = train(demo, "+exp=sft_demo", "+debug=demo")
    assert "done already" in done.stdout
    assert run_of(demo, "sft").stat().st_mtime_ns == before


def test_an_ablation_is_one_key_and_another_run(demo):
    overrides = ("reward.explanation.neutral_filter=false", "reward.explanation.threshold=0.2", "name=ablation")
    train(demo, "+exp=grpo_demo", "+debug=demo", *overrides)
    config = (run_of(demo, "ablation") / "config.yaml").read_text()
    assert "neutral_filter: false" in config
    assert "threshold: 0.2" in config


def copy_of(demo, target):
    for name in ("data", "cache", "runs/demo/towers", "runs/demo/verifier", "runs/demo/sft"):
        shutil.copytree(demo / name, target / name)
    return target


@pytest.mark.faults
def test_a_run_killed_while_it_was_evaluated_is_not_trained_again(demo, tmp_path, fault):
    root = copy_of(demo, tmp_path)
    shutil.copytree(demo / "runs/demo/grpo", root / "runs/demo/grpo")
    folder = run_of(root, "grpo")
    before = json.loads((folder / "metrics.json").read_text())
    (folder / "metrics.json").unlink()
    train(root, "+exp=grpo_demo", "+debug=demo", "name=grpo", "reward=format_answer")
    assert json.loads((folder / "metrics.json").read_text()) == before
    assert "train/reward" not in (folder / "logs" / "version_1" / "metrics.csv").read_text()
    fault("killed while the run is evaluated", "nothing is trained again", "same figures, no step taken")


def test_evaluate_gives_the_figures_that_training_ended_with(demo):
    command = [sys.executable, "-m", "erv.evaluate", "+exp=eval_demo", "data.clips=48", "data.dev=8",
               "data.test=8", "evaluation.limit=4", "policy.checkpoint=runs/demo/grpo_erv"]  # fmt: skip
    done = subprocess.run(command, cwd=demo, env=warm(demo), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads((run_of(demo, "evaluate") / "metrics.json").read_text())
    trained = json.loads((run_of(demo, "grpo_erv") / "metrics.json").read_text())
    assert found["sampled"] == trained["sampled"]
    assert found["greedy"] == trained["greedy"]
