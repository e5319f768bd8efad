"""What ends runs on clusters, each for real: what is done is kept, and the run that goes on is, to the last bit, the whole one.

pytest -m faults
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pyarrow.parquet as pq
import pytest
import torch
from commands import children, environment, interrupted, run_of, train
from endpoint import Endpoint, judge

from erv.distributed.signals import Stopped
from erv.evaluation.metrics.learning_curves import read_curves
from erv.runs.checkpoints import list_checkpoints
from erv.taxonomy import DFEW
from erv.training.callbacks.preemption import Preemption

pytestmark = pytest.mark.faults
COMMON = ("+debug=demo", "evaluation.limit=1", "evaluation.samples=1")
STAGES = {
    # two updates a rollout, each of two micro-batches
    "grpo": ("+exp=grpo_demo", *COMMON, "algo.group_size=4", "algo.updates=2", "algo.token_budget=6000"),
    "sft": ("+exp=sft_demo", *COMMON, "trainer.limit_train_batches=8", "+trainer.accumulate_grad_batches=2"),
}
LORA = "policy.lora={r: 4, lora_alpha: 8}"


@pytest.fixture(scope="module")
def whole(demo):
    """Runs that nothing happened to, each made when it is wanted."""
    made = {}

    def of(stage, lora=False):
        if (stage, lora) not in made:
            name = f"whole_{stage}_{lora}"
            train(demo, *STAGES[stage], *[LORA] * lora, f"name={name}")
            made[stage, lora] = run_of(demo, name)
        return made[stage, lora]

    return of


def same(other, whole, curves=True):
    """Curves, completions and weights; what a run did again counts once."""
    weights = [(folder / "model" / "model.safetensors").read_bytes() for folder in (other, whole)]
    assert weights[0] == weights[1]
    if curves:
        assert read_curves(other) == read_curves(whole)
    if (whole / "completions.parquet").exists():
        tables = [pq.read_table(folder / "completions.parquet") for folder in (other, whole)]
        assert tables[0].equals(tables[1])
    assert (other / "predictions.jsonl").read_bytes() == (whole / "predictions.jsonl").read_bytes()
    figures = [json.loads((folder / "metrics.json").read_text()) for folder in (other, whole)]
    for found in figures:
        found.update(arm="", signature="")  # with the name, and with the checkpoints' paths
    assert figures[0] == figures[1]
    left = [sorted(file.name for file in (folder / "checkpoints").iterdir()) for folder in (other, whole)]
    assert left[0] == left[1]


@pytest.mark.parametrize(
    ("stage", "lora", "moment", "when"),
    [
        ("grpo", False, "batch:2", "in a batch"),
        pytest.param("grpo", True, "batch:3", "in a batch, LoRA", marks=pytest.mark.slow),
        pytest.param("grpo", False, "half:1", "a checkpoint is half written", marks=pytest.mark.slow),
        pytest.param("grpo", True, "undeclared:2", "a checkpoint has no manifest yet, LoRA", marks=pytest.mark.slow),
        ("sft", False, "batch:5", "gradients are accumulated"),
        pytest.param("sft", True, "written:2", "a checkpoint is not in its place yet, LoRA", marks=pytest.mark.slow),
    ],
)
def test_killed(demo, whole, fault, stage, lora, moment, when):
    name = f"{stage}_{lora}_{moment.replace(':', '_')}"
    overrides = (*STAGES[stage], *[LORA] * lora, f"name={name}")
    assert interrupted(demo, moment, *overrides).returncode == -signal.SIGKILL
    assert not (run_of(demo, name) / "metrics.json").exists()
    train(demo, *overrides)
    same(run_of(demo, name), whole(stage, lora))
    fault(f"SIGKILL while {when} ({stage})", "goes on as if nothing had been", "same rows, completions and weights")


@pytest.mark.parametrize(
    ("moment", "saved", "when"),
    [
        ("rollout:3:SIGTERM", 3, "what was sampled is read"),
        pytest.param("ended:0:SIGUSR1", 1, "the weights have been changed", marks=pytest.mark.slow),
        pytest.param(
            "everyone:1:SIGINT", 2, "the weights have been changed; to the workers too", marks=pytest.mark.slow
        ),
    ],
)
def test_asked_to_end(demo, whole, fault, tmp_path, moment, saved, when):
    """Before a batch changes anything, its beginning is saved; afterwards, its end. SLURM gets the job back at SIGUSR1."""
    number = moment.rpartition(":")[2]
    scontrol = tmp_path / "bin" / "scontrol"
    scontrol.parent.mkdir()
    scontrol.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n')
    scontrol.chmod(0o755)
    overrides = (*STAGES["grpo"], f"name={number}", *["loader.workers=2"] * moment.startswith("everyone"))
    code = 130 if number == "SIGINT" else 143
    slurm = {
        "SLURM_JOB_ID": "77",
        "SLURM_NTASKS": "1",
        "SLURM_JOB_NAME": "bash",
        "PATH": f"{scontrol.parent}:{os.environ['PATH']}",
    }
    done = interrupted(demo, moment, *overrides, **slurm)
    assert done.returncode == code, done.stderr
    assert f"ended by {number}; the same command goes on from here" in done.stderr
    assert "Traceback" not in done.stderr
    folder = run_of(demo, number)
    assert [checkpoint.iter for checkpoint in list_checkpoints(folder)][-1] == saved
    asked = (tmp_path / "asked").read_text() if (tmp_path / "asked").exists() else ""
    assert asked == ("requeue 77\n" if number == "SIGUSR1" else "")
    train(demo, *overrides)
    assert {c.iter for c in list_checkpoints(folder)} >= {4}
    assert read_curves(folder) == read_curves(whole("grpo"))
    same_weights(folder, whole("grpo"))
    fault(
        f"{number} when {when}",
        f"exit {code}, saved",
        f"exit {done.returncode}, saved after {saved} batches; same weights",
    )


def test_ctrl_c_again_waits_for_nothing(caplog):
    stopping = Preemption(checkpoints=None)
    with caplog.at_level("INFO"):
        stopping._handle(signal.SIGTERM, None)
        stopping._handle(signal.SIGTERM, None)
        stopping._handle(signal.SIGINT, None)
    assert "SIGINT: the batch comes to its end first (Ctrl-C again: at once, without it)" in caplog.text
    with pytest.raises(Stopped) as end:
        stopping._handle(signal.SIGINT, None)
    assert (end.value.code, end.value.number) == (130, signal.SIGINT)


def same_weights(one, other):
    assert (one / "model" / "model.safetensors").read_bytes() == (other / "model" / "model.safetensors").read_bytes()


@pytest.fixture
def small_disk(tmp_path):
    """A file system of its own."""
    place = tmp_path / "disk"
    place.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "erv", str(place)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"this user may mount nothing: {done.stderr.strip()}")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.mark.parametrize(
    ("what", "reason"),
    [("full", "No space left on device"), pytest.param("readonly", "Read-only file system", marks=pytest.mark.slow)],
)
def test_the_disk_refuses(demo, whole, fault, small_disk, what, reason):
    made = [f"policy.checkpoint={run_of(demo, 'sft')}", f"verifier.model.checkpoint={run_of(demo, 'verifier')}"]
    overrides = (*STAGES["grpo"], *made, f"paths.runs={small_disk}", f"name={what}")
    done = interrupted(demo, f"{what}:2:{small_disk}", *overrides)
    assert done.returncode == 2, done.stdout + done.stderr
    assert reason in done.stderr
    assert "set paths.runs (ERV_RUNS) to another disk" in done.stderr
    assert "Traceback" not in done.stderr
    (folder,) = (small_disk / "demo" / what).iterdir()
    assert [checkpoint.iter for checkpoint in list_checkpoints(folder)] == [2]
    if what == "full":
        (small_disk / "filler").unlink()
    else:
        subprocess.run(["umount", "-l", str(small_disk)], check=True)
    train(demo, *overrides)
    same(folder, whole("grpo"))
    fault(f"disk: {reason.lower()}", "says so; nothing lost", "exit 2, one message; with room again, the same weights")


def test_a_step_that_is_not_finite(demo, fault):
    """Two in a row are left out, and the weights stay; three end the run, with all batches kept for a look."""
    overrides = ("+exp=sft_demo", *COMMON, "trainer.limit_train_batches=5")
    done = interrupted(demo, "nan:1:2", *overrides, "name=nan_two")
    assert done.returncode == 0, done.stderr
    folder = run_of(demo, "nan_two")
    assert sorted(file.name for file in (folder / "nonfinite").iterdir()) == ["00000002.pt", "00000003.pt"]
    assert len(torch.load(folder / "nonfinite" / "00000002.pt", weights_only=True)["batch"]) == 32
    ended = interrupted(demo, "nan:1:9", *overrides, "name=nan_three")
    assert ended.returncode == 1
    assert "3 steps in a row were not finite (algo.max_nonfinite=3)" in ended.stderr
    (saved,) = [c.iter for c in list_checkpoints(run_of(demo, "nan_three")) if c.iter > 2]
    assert saved == 3
    fault(
        "NaN in the loss",
        "skipped, kept; k in a row end the run",
        "2 left out, the third in a row ended it; saved before it",
    )


def test_the_verifier_raises(demo, whole, fault):
    overrides = (*STAGES["grpo"], "name=raises")
    done = interrupted(demo, "verifier:3", *overrides)
    assert done.returncode == 1
    assert "ValueError: the verifier cannot read this" in done.stderr
    assert "saved after 3 batches: the same command goes on from there" in done.stderr
    train(demo, *overrides)
    assert read_curves(run_of(demo, "raises")) == read_curves(whole("grpo"))
    same_weights(run_of(demo, "raises"), whole("grpo"))
    fault("the verifier raises", "the error is shown, nothing lost", "exit 1, saved after 3 batches; same weights")


def test_memory_is_short_in_a_micro_batch(demo, whole, fault):
    overrides = (*STAGES["grpo"], "name=memory")
    done = interrupted(demo, "memory:1", *overrides)
    assert done.returncode == 0, done.stderr
    assert "memory was short for a micro-batch of" in done.stderr + done.stdout
    folder = run_of(demo, "memory")
    one, other = (read_curves(f)["train/loss"][1] for f in (folder, whole("grpo")))
    assert one == pytest.approx(other, abs=1e-4)
    assert read_curves(folder)["samples"] == read_curves(whole("grpo"))["samples"]
    fault(
        "out of memory in a micro-batch",
        "half the tokens, same batch",
        "went on; losses within 1e-4 of the whole run's",
    )


def test_the_judge_is_down(demo, fault):
    """Training asks no server. What it has to say at the end fails, and is all that the same command has to do."""
    server = Endpoint(judge(DFEW.labels))
    port = server.server.server_address[1]
    server.close()
    llm = "judge.vllm.llm"
    overrides = ("+exp=grpo_demo", *COMMON, "name=down", "judge=vllm", f"{llm}.model=m", f"{llm}.base_url=http://127.0.0.1:{port}/v1",
                 f"{llm}.attempts=2", f"{llm}.breaker=4", f"{llm}.backoff_s=0.01", f"{llm}.max_backoff_s=0.02")  # fmt: skip
    answering = "answers:0:<think>The jaw drops.</think><answer>angry</answer>"
    ended = interrupted(demo, answering, *overrides)
    assert ended.returncode == 1, ended.stdout + ended.stderr
    assert "2 of 2 verdicts of judge 'vllm' failed, the first with: 2 calls, the last: no reply" in ended.stderr
    assert "Traceback" not in ended.stderr
    folder = run_of(demo, "down")
    curves = read_curves(folder)
    server = Endpoint(judge(DFEW.labels), port=port)
    try:
        done = interrupted(demo, answering, *overrides)
    finally:
        server.close()
    assert done.returncode == 0, done.stdout + done.stderr
    found = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
    assert [verdict["status"] for row in found for verdict in row["verdicts"]] == ["ok", "ok"]
    assert curves.items() <= read_curves(folder).items()  # the figures of the evaluation have come to them
    assert "train/loss" in curves
    fault("the judge is down", "no verdict is invented", "exit 1 after training; the same command asked the judge only")


@pytest.mark.slow
def test_a_rank_hangs(demo, fault):
    overrides = ("+exp=grpo_demo", "+debug=demo", "name=hangs", "trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2",
                 "launch.watchdog_s=4")  # fmt: skip
    command = [sys.executable, "-m", "erv.train", *overrides]
    process = subprocess.Popen(
        command, cwd=demo, env=environment(demo), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    wait_for(process, lambda: list(demo.glob("runs/demo/hangs/*/checkpoints/*.json")))
    (rank,) = children(process.pid)
    os.kill(rank, signal.SIGSTOP)
    printed = process.communicate(timeout=60)[1].decode()
    assert process.returncode == 1
    assert "erv: rank 0: nothing has happened for 4 s (launch.watchdog_s) in " in printed
    assert "(most recent call first)" in printed
    assert not children(process.pid)
    said = printed[printed.index("nothing has happened") : printed.index("; the run ends")]
    fault("a rank hangs (SIGSTOP)", "phase and stacks, the job ends", said)


@pytest.mark.slow
def test_two_ranks_are_asked_to_end(demo, whole, fault):
    """Only one of them is told."""
    overrides = (
        "+exp=grpo_demo",
        "+debug=demo",
        "name=both",
        "trainer=ddp",
        "trainer.accelerator=cpu",
        "trainer.devices=2",
    )
    command = [sys.executable, "-m", "erv.train", *overrides]
    process = subprocess.Popen(command, cwd=demo, env=environment(demo), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    wait_for(process, lambda: list(demo.glob("runs/demo/both/*/checkpoints/*.json")))
    (rank,) = children(process.pid)
    os.kill(rank, signal.SIGTERM)
    printed = process.communicate(timeout=60)[1].decode()
    assert process.returncode == 143, printed
    assert "Traceback" not in printed
    folder = run_of(demo, "both")
    saved = list_checkpoints(folder)[-1].iter
    assert 2 <= saved < 4
    done = train(demo, *overrides)
    assert f"iter {saved + 1}/4" in done.stdout + done.stderr
    assert read_curves(folder)["train/reward"] == read_curves(run_of(demo, "grpo_erv"))["train/reward"]
    fault("SIGTERM to one of two ranks", "both save and end, exit 143", f"both ended; went on from iteration {saved}")


def wait_for(process, ready):
    deadline = time.time() + 120
    while not ready():
        assert process.poll() is None, "it ended too early"
        assert time.time() < deadline
        time.sleep(0.02)


@pytest.mark.slow
def test_the_clock_jumps(demo, whole, fault):
    """By a year, while it trains; and the files of the run are from tomorrow."""
    overrides = (*STAGES["grpo"], "name=clock")
    done = interrupted(demo, "clock:1", *overrides)
    assert done.returncode == 0, done.stderr
    same(run_of(demo, "clock"), whole("grpo"))
    fault("the clock goes back by a year", "nothing", "same rows, completions and weights")


def test_a_damaged_checkpoint(demo, whole, fault):
    """The one before it is taken; when none is whole, the user decides."""
    folder = run_of(demo, "damaged") if (demo / "runs" / "demo" / "damaged").exists() else None
    assert folder is None
    shutil.copytree(whole("grpo"), demo / "runs" / "demo" / "damaged" / whole("grpo").name)
    folder = run_of(demo, "damaged")
    for name in ("metrics.json", "completions.parquet", "model/model.safetensors"):
        (folder / name).unlink()
    newest = list_checkpoints(folder)[-1].file
    with newest.open("r+b") as file:
        file.seek(newest.stat().st_size // 2)
        file.write(b"damage")
    done = train(demo, *STAGES["grpo"], "name=damaged")
    assert f"{newest} has other bytes than were written; going on from iteration 2" in done.stdout + done.stderr
    same_weights(folder, whole("grpo"))
    (folder / "metrics.json").unlink()
    for checkpoint in list_checkpoints(folder):
        checkpoint.file.write_bytes(b"")
    refused = train(demo, *STAGES["grpo"], "name=damaged", check=False)
    assert refused.returncode == 2
    assert "no checkpoint of this run is whole" in refused.stderr
    fault("a checkpoint is damaged", "the one before it is taken", "went on from iteration 2; same weights")
