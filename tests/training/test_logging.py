"""Curves under one set of names in metrics.csv, TensorBoard and W&B; what W&B is given; secrets; the progress line."""

import csv
import json
import re
import subprocess
import sys
from itertools import product

import pyarrow.parquet as pq
import pytest
import wandb_file
from commands import ROOT, environment, in_a_terminal, run_of, train, warm
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from erv.report.rows import load, rows_of
from erv.report.wandb_workspace import workspace
from erv.training.callbacks.progress import format_metrics
from erv.utils import secrets

SECRETS = {
    "WANDB_API_KEY": "local-5b0cf3d1a7e94f62b8d05c1e7a3f9b24d6e80c17", "OPENAI_API_KEY": "sk-proj-5b0cf3d1a7e94f62b8d05c1e",
    "HF_TOKEN": "hf_5b0cf3d1a7e94f62b8d05c1e7a3f9b24",
}  # fmt: skip
STAGES = {"sft": "sft_demo", "verifier": "verifier_demo", "grpo": "grpo_demo"}
AXES = {"iter", "samples"}


@pytest.fixture(scope="module")
def logged(demo):
    """Stage -> (folder, output) of a run with all loggers, in an environment with secrets and an unreachable W&B."""
    env = {**warm(demo), **SECRETS, "WANDB_BASE_URL": "http://127.0.0.1:9"}
    found = {}
    for stage, exp in STAGES.items():
        command = [sys.executable, "-m", "erv.train", f"+exp={exp}", "+debug=demo", f"name={stage}_logged",
                   "logger=[tensorboard,wandb]", "logger.wandb.tags=[demo]"]  # fmt: skip
        done = subprocess.run(command, cwd=demo, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        found[stage] = run_of(demo, f"{stage}_logged"), done.stdout + done.stderr
    return found


def wandb_records(folder):
    (file,) = folder.glob("wandb/offline-run-*/*.wandb")
    return wandb_file.records(file)


def csv_rows(folder):
    with (folder / "logs" / "version_0" / "metrics.csv").open() as lines:
        return [{name: value for name, value in row.items() if value} for row in csv.DictReader(lines)]


def expanded(name):
    """`a/{b,c}` -> a/b, a/c."""
    parts = [part.split(",") for part in re.split(r"[{}]", name)]
    return {"".join(words) for words in product(*parts)}


def documented(stage):
    """(metrics that are always logged, metrics that may be) by docs/logging.md."""
    always, may = set(), set()
    for line in (ROOT / "docs" / "logging.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if (
            len(cells) == 5
            and cells[0].startswith("`")
            and cells[1] in ("all", *re.findall(rf".*\b{stage}\b.*", cells[1]))
        ):
            (may if cells[4] else always).update(expanded(cells[0].strip("`")))
    return always, may


@pytest.mark.parametrize("stage", STAGES)
def test_all_loggers_write_the_names_of_the_docs(logged, stage):
    folder, _ = logged[stage]
    always, may = documented(stage)
    rows = csv_rows(folder)
    names = {name for row in rows for name in row} - {"step"}
    assert always | AXES <= names <= always | may | AXES
    assert all(row.keys() >= AXES and float(row["step"]) == float(row["iter"]) for row in rows)
    events = EventAccumulator(str(folder / "tensorboard")).Reload()
    assert set(events.Tags()["scalars"]) == names
    shown = [(e.step, e.value) for e in events.Scalars("train/loss")]
    assert [step for step, _ in shown] == [1, 2, 3, 4]
    records = wandb_records(folder)
    history = wandb_file.history(records)
    assert {n for row in history for n in row if not n.startswith("completions")} == names
    sent = {row["iter"]: row["train/loss"] for row in history if "train/loss" in row}
    assert sent == pytest.approx(dict(shown))
    assert wandb_file.axes(records) == {name: "" if name in AXES else "iter" for name in names}  # no pattern among them


def test_the_axes_count_batches_and_samples(logged):
    for stage, size in (("sft", 32), ("verifier", 32), ("grpo", 16)):
        rows = csv_rows(logged[stage][0])
        assert {(float(r["iter"]), float(r["samples"])) for r in rows} == {(i, i * size) for i in range(1, 5)}
        assert [r["iter"] for r in rows if "dev/loss" in r or "dev/war" in r] == ["2.0", "4.0"]
        assert [r["iter"] for r in rows if any(name.startswith("test/") for name in r)] == ["4.0"]


FROZEN_PARTS = re.compile(r".*Found \d+ module\(s\) in eval mode at the start of training\..*\n")  # Lightning's


def test_nothing_warns_and_one_line_says_that_wandb_is_offline(logged):
    for stage, (folder, output) in logged.items():
        assert len(re.findall("W&B is offline .*wandb sync .*offline-run", output)) == 1
        assert len(FROZEN_PARTS.findall(output)) == (0 if stage == "verifier" else 1)  # the towers are frozen
        output = FROZEN_PARTS.sub("", output)
        assert not re.search(r"(?i)warning|wandb: ", output), output
        for log in folder.glob("wandb/offline-run-*/logs/*.log"):
            assert not re.search(r"WARN|ERROR", log.read_text()), log


def test_the_wandb_run_says_what_it_is(logged):
    folder, _ = logged["grpo"]
    records = wandb_records(folder)
    (run,) = (record.run for record in records if record.WhichOneof("record_type") == "run")
    assert (run.run_id, run.run_group, run.job_type) == (f"grpo_logged-{folder.name}", "demo", "grpo")
    assert list(run.tags) == ["demo"]
    config = {item.key: json.loads(item.value_json) for item in run.config.update}
    env = json.loads((folder / "env.json").read_text())
    assert config["algo"]["group_size"] == 8
    assert (config["commit"], config["dirty"]) == (env["commit"], None if env["diff"] is None else bool(env["diff"]))
    assert config["hardware"]["cpus"] == env["cpus"]


def test_artifacts_show_what_came_from_what(logged, demo):
    found = {stage: wandb_file.artifacts(wandb_records(folder)) for stage, (folder, _) in logged.items()}
    sft, verifier = (f"{arm}-{run_of(demo, arm).name}" for arm in ("sft", "verifier"))
    made = (f"grpo_logged-{logged['grpo'][0].name}", "model", False)
    assert found["grpo"] == [(sft, "model", True), (verifier, "verifier", True), made]
    assert [kind for _, kind, _ in found["verifier"]] == ["labels", "labels", "verifier"]


def test_completions_are_appended_with_sentences_and_emotions(logged):
    folder, _ = logged["grpo"]
    tables = [json.loads(f.read_text()) for f in folder.glob("wandb/offline-run-*/files/media/table/*.json")]
    tables.sort(key=lambda table: table["data"][0][0])
    assert [len(table["data"]) for table in tables] == [16] * 4
    every = pq.read_table(folder / "completions.parquet").to_pylist()
    assert tables[0]["columns"] == list(every[0])
    assert {"clip_id", "gold", "text", "reward", "reward_explanation", "sentences"} <= every[0].keys()
    assert [row[1:4] for row in tables[2]["data"]] == [[r["clip_id"], r["gold"], r["text"]] for r in every[256:272]]


def test_no_secret_is_written_or_said(logged, demo):
    for folder, output in logged.values():
        files = [file for file in folder.rglob("*") if file.is_file()]
        assert {"env.json", "metrics.csv", "debug.log"} <= {file.name for file in files}
        for secret in SECRETS.values():
            assert secret not in output
            assert [f for f in files if secret.encode() in f.read_bytes()] == []
    command = [sys.executable, "-m", "erv.train", "+exp=sft_demo", "+judge.gpt.api_key=sk-typed-in-by-hand"]
    done = subprocess.run(command, cwd=demo, env=warm(demo), capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "'judge.gpt.api_key' is a secret, and would be written down; set it in the environment" in done.stderr
    assert "typed-in" not in done.stdout + done.stderr


def test_secrets_are_known_by_name_and_by_value(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", SECRETS["OPENAI_API_KEY"])
    good = {
        "llm": {"key_variable": "OPENAI_API_KEY", "max_new_tokens": 5},
        "algo": {"token_budget": 1},
        "hf_token": None,
    }
    assert list(secrets.refused(good)) == []
    bad = {"a": [{"note": f"Bearer {SECRETS['OPENAI_API_KEY']}"}], "db_password": "x"}
    problems = list(secrets.refused(bad))
    assert [p.split("'")[1] for p in problems] == ["a.0.note", "db_password"]
    assert "holds the value of OPENAI_API_KEY" in problems[0]
    assert secrets.masked(f"key={SECRETS['OPENAI_API_KEY']}") == "key=***"


def test_progress_is_one_line_now_and_then_or_one_bar(logged, demo):
    assert format_metrics({"reward": 2.31, "dev/fcr": 0.482}) == "reward 2.31 fcr 48.2"
    lines = re.findall(r"^iter .*$", logged["grpo"][1], re.MULTILINE)
    assert re.fullmatch(r"iter 1/4 reward \S+ eta \d:\d\d:\d\d", lines[0])
    assert re.fullmatch(r"iter 4/4 reward \S+ fcr \S+ eta 0:00:00", lines[-1])
    command = [sys.executable, "-m", "erv.train", "+exp=verifier_demo", "+debug=demo", "name=bar"]
    code, printed = in_a_terminal(command, warm(demo))
    assert code == 0, printed
    frames = [line for line in re.split(r"[\r\n]", printed) if re.search(r"\d/4", line)]
    assert re.search(r"iter.*4/4.*loss .*eta 0:00:00", frames[-1])
    assert all(line.count("/4") == 1 for line in frames)


def test_the_workspace_of_the_report(demo):
    train(demo, "+exp=grpo_demo", "+debug=demo", "name=workspace", "reward.explanation.threshold=0.3")
    rows = rows_of(load([demo / "runs/demo/grpo_erv", demo / "runs/demo/workspace"]))
    view = json.loads(workspace(rows, "team", "erv")._to_model().spec.model_dump_json(by_alias=True, exclude_none=True))
    sections = {s["name"]: [p["config"] for p in s["panels"]] for s in view["section"]["panelBankConfig"]["sections"]}
    figures, health, bars = (
        sections[n] for n in ("Figures on dev clips", "Reward and policy health", "Test figures by key")
    )
    assert [panel["metrics"] for panel in figures] == [[f"dev/{f}"] for f in ("war", "uar", "eea", "epc", "fcr")]
    assert {panel["xAxis"] for panel in figures + health} == {"iter"}
    always, may = documented("grpo")
    assert {metric for panel in health for metric in panel["metrics"]} <= always | may
    assert {panel["groupBy"] for panel in bars} == {"name.value", "reward.value.explanation.threshold"}
    assert {m for panel in bars for m in panel["metrics"]} == {
        f"summary_metrics.test/sampled/{f}" for f in ("war", "uar", "eea", "epc", "fcr")
    }


def test_the_report_says_when_there_is_no_wandb(demo):
    env = {key: value for key, value in environment(demo).items() if not key.startswith("WANDB")} | {"HOME": str(demo)}
    command = [sys.executable, "-m", "erv.report", "runs/demo/grpo_erv", "--wandb", "team/erv"]
    done = subprocess.run(
        command, cwd=demo, env=env, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 1
    assert "--wandb needs a key for W&B and a network" in done.stderr
    assert "Traceback" not in done.stderr
