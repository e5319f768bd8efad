"""docs/extending.md: its files are written, and its commands run, as a user does who follows the page."""

import csv
import json
import re
import shutil
import subprocess

import pyarrow.parquet as pq
import pytest
from commands import ROOT, run_of, warm

PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture(scope="module")
def lab(demo):
    """The demo's folder with the page's files in it, and clips of the demo as our lab's data set."""
    for kind, text in BLOCKS:
        if kind in ("python", "yaml"):
            name, text = text.split("\n", 1)
            file = demo / name.removeprefix("# ")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
    folder = demo / "interviews"
    folder.mkdir()
    with (folder / "interviews.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["file", "emotion", "split"])
        clips = sorted((demo / "data").rglob("*.mp4"))[:6]
        for clip, split in zip(clips, ["train"] * 4 + ["dev", "test"], strict=True):
            shutil.copy(clip, folder)
            table.writerow([clip.name, "happy", split])
    return demo


def run(lab, part):
    """Run the command of the page that has `part`."""
    (command,) = [text for kind, text in BLOCKS if kind == "bash" and part in text]
    env = warm(lab)
    env["PYTHONPATH"] = f"{env['PYTHONPATH']}:{lab}"
    return subprocess.run(["bash", "-c", command], cwd=lab, env=env, capture_output=True, text=True, check=False)


def test_a_reward(lab):
    done = run(lab, "my_lab.rewards.Brevity")
    assert done.returncode == 0, done.stderr
    folder = run_of(lab, "brevity")
    rows = pq.read_table(folder / "completions.parquet").to_pylist()
    assert all(row["reward_brevity"] == min(max(2 - row["tokens"] / 30, 0), 1) for row in rows)
    assert "train/rewards/brevity/mean" in next(folder.glob("logs/**/metrics.csv")).read_text()
    assert json.loads((folder / "env.json").read_text())["plugins"] == ["my_lab"]


def test_a_metric(lab):
    done = run(lab, "with_our_metric")
    assert done.returncode == 0, done.stderr
    assert "WARR" in done.stdout
    metrics = json.loads((run_of(lab, "with_our_metric", "evaluate") / "metrics.json").read_text())
    assert 0 <= metrics["sampled"]["wrong_answer_right_reason"] <= 1


def test_a_data_set(lab):
    done = run(lab, "data=interviews")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "interviews" in done.stdout


def test_an_ablation_and_a_callback(lab):
    done = run(lab, "+ablation=lenient")
    assert done.returncode == 0, done.stderr
    assert "our lab: 2 batches" in done.stdout
    assert "threshold: 0.05" in (run_of(lab, "grpo_lenient") / "config.yaml").read_text()


def test_a_policy(lab):
    done = run(lab, "our_question")
    assert done.returncode == 0, done.stderr
    assert "load_with_question" in (run_of(lab, "our_question", "evaluate") / "config.yaml").read_text()


def test_without_the_variable_a_class_is_refused_with_the_line_that_says_how(lab):
    command = "python -m erv.train +exp=grpo_demo +debug=demo +reward.terms.brevity._target_=my_lab.rewards.Brevity"
    done = subprocess.run(["bash", "-c", command], cwd=lab, env=warm(lab), capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "begin the command with ERV_PLUGINS=my_lab" in done.stderr
