"""Training in two processes: the same batches, answers and weights as in one, files written once, and no rank left behind."""

import contextlib
import csv
import json
import math
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import ddp_grpo
import pyarrow.parquet as pq
import pytest
import torch
from commands import ROOT, children, environment, inside, run_of, train
from hydra import compose, initialize_config_dir
from lightning.pytorch.strategies import DeepSpeedStrategy
from omegaconf import OmegaConf
from safetensors.torch import load_file

from erv.cli.command import conf_folder
from erv.distributed import deepspeed_internals
from erv.distributed.deepspeed import DeepSpeed
from erv.distributed.ranks import LEADER, Ranks
from erv.errors import ConfigError
from erv.runtime.preflight import trainer_problems
from erv.train import main
from erv.training.oom import OutOfMemory, smaller_budget
from erv.training.optim import OptimizerSettings
from erv.training.sampler import DevBatches, StepBatches, replica_part

DDP = ("trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2")
HERE = Path(__file__).parents[1] / "support"


def free_ports(count):
    """None of those that the system gives to outgoing connections, of which there are many until the last port is used."""
    found = []
    for port in random.sample(range(10_000, 32_768), 1000):
        with socket.socket() as one, contextlib.suppress(OSError):
            one.bind(("127.0.0.1", port))
            found.append(str(port))
        if len(found) == count:
            return found
    raise OSError("no ports are free")


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(name, marks=[pytest.mark.slow] * name.startswith("deepspeed")) for name in ddp_grpo.STRATEGIES
    ],
)
def letters(request, tmp_path_factory):
    """GRPO on letters under a strategy: a folder with one/ and two/, by case and rank."""
    root = tmp_path_factory.mktemp("letters")
    ports = free_ports(len(ddp_grpo.CASES) + 1)
    command = [sys.executable, str(HERE / "ddp_grpo.py"), request.param]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (ROOT, HERE))), "DS_ACCELERATOR": "cpu"}
    ranks = [
        subprocess.Popen(
            [*command, str(root / "two"), str(rank), "2", *ports], env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        for rank in (0, 1)
    ]  # fmt: skip
    try:
        ddp_grpo.run("ddp", root / "one", 0, 1, ports[:-1])
        for rank in ranks:
            printed = rank.communicate(timeout=240)[0].decode()
            assert rank.returncode == 0, printed
    finally:  # one that failed is waited for by the other
        for rank in ranks:
            rank.kill()
    return root


def without_nan(figures):
    """With infinity for it: DeepSpeed does not tell them apart."""
    return {name: math.inf if math.isnan(value) else value for name, value in figures.items()}


@pytest.mark.parametrize("case", ddp_grpo.CASES)
def test_two_processes_train_as_one_does(letters, case):
    one = torch.load(letters / "one" / case / "rank0.pt", weights_only=True)
    two = [torch.load(letters / "two" / case / f"rank{rank}.pt", weights_only=True) for rank in (0, 1)]
    for found in two:
        for name in ("weights", "gradients") if found["gradients"] else ("weights",):
            torch.testing.assert_close(found[name], one[name], atol=1e-5, rtol=0, equal_nan=True)
        told = dict if found["gradients"] else without_nan
        for mine, others in zip(found["logged"], one["logged"], strict=True):
            assert told(mine) == pytest.approx(told(others), abs=1e-5, rel=1e-5, nan_ok=True)
        resampled = [[value for name, value in run["singles"] if name.startswith("train/")] for run in (found, one)]
        assert resampled[0] == resampled[1]
    torch.testing.assert_close(two[0]["weights"], two[1]["weights"], atol=0, rtol=0)
    assert [row[:3] for row in two[0]["rows"]] == [row[:3] for row in one["rows"]]
    assert [row[3] for row in two[0]["rows"]] == pytest.approx([row[3] for row in one["rows"]], abs=1e-6)
    assert two[1]["rows"] == []  # rank 0 has them all


def test_a_step_that_is_not_finite_is_left_out_by_all(letters):
    kept = [letters / "two" / "broken" / "nonfinite" / f"00000002{rank}.pt" for rank in ("", "-rank1")]
    clips = [torch.load(file, weights_only=True)["clips"] for file in kept]
    assert clips == [["0", "1", "2"], ["3", "4", "5"]]


def curves(folder):
    rows = list(csv.DictReader((folder / "logs" / "version_0" / "metrics.csv").open()))
    return [{name: float(value) for name, value in row.items() if value} for row in rows]


def weights(folder):
    return load_file(folder / "model" / "model.safetensors")


def is_written_once(folder, printed):
    assert [other.name for other in folder.parent.iterdir()] == [folder.name]
    assert [version.name for version in (folder / "logs").iterdir()] == ["version_0"]
    assert printed.count(f"run {folder}") == printed.count(f"done: {folder}") == 1


def test_sft(demo):
    done = train(demo, "+exp=sft_demo", "+debug=demo", "name=sft_ddp", *DDP)
    one, two = run_of(demo, "sft"), run_of(demo, "sft_ddp")
    assert one.name == two.name  # the number of processes is no setting
    is_written_once(two, done.stdout)
    torch.testing.assert_close(weights(two), weights(one), atol=1e-5, rtol=0)
    for mine, others in zip(curves(two), curves(one), strict=True):
        assert mine == pytest.approx(others, abs=1e-4)


@pytest.mark.parametrize(
    "name", ["fsdp2", *(pytest.param(f"deepspeed_z{stage}", marks=pytest.mark.slow) for stage in (2, 3))]
)
def test_weights_shared_out_go_on_from_any_checkpoint_and_leave_one_for_any(demo, name):
    """One process until the second step, two with shares of the weights until the third, one again for the fourth."""
    one = run_of(demo, "sft")
    two = one.parent.with_name(f"sft_{name}") / one.name
    shutil.copytree(one, two, ignore=shutil.ignore_patterns("metrics.json", "model", "step-00000004.*"))
    overrides = ("+exp=sft_demo", "+debug=demo", f"name=sft_{name}", "checkpoint.every=1")
    train(demo, *overrides, f"trainer={name}", *DDP[1:])
    torch.testing.assert_close(weights(two), weights(one), atol=1e-5, rtol=0)
    (two / "metrics.json").unlink()
    for file in (two / "checkpoints").glob("step-00000004.*"):
        file.unlink()
    done = inside(main, demo, *overrides)
    assert done.returncode == 0, done.stderr
    torch.testing.assert_close(weights(two), weights(one), atol=1e-5, rtol=0)


@pytest.mark.slow
def test_towers_with_fewer_dev_clips_than_processes(demo):
    done = train(demo, "+exp=towers_demo", "+debug=demo", "name=towers_ddp", "data.dev_limit=1", *DDP)
    one, two = run_of(demo, "towers"), run_of(demo, "towers_ddp")
    is_written_once(two, done.stdout)
    torch.testing.assert_close(
        weights(two), weights(one), atol=1e-3, rtol=0
    )  # Adam makes steps even of rounding errors
    losses = [[row["train/loss"] for row in curves(folder) if "train/loss" in row] for folder in (one, two)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)
    assert {row["dev/accuracy/both"] for row in curves(two) if "dev/accuracy/both" in row} <= {0.0, 1.0}


@pytest.mark.slow
def test_the_verifier_with_contrasts_among_the_sentences_of_all(demo):
    still = [f"+verifier.model.config.{name}_dropout_prob=0.0" for name in ("hidden", "attention_probs")]
    common = ("+exp=verifier_demo", "+debug=demo", "algo.loss.name=supcon+bce", *still)
    alone = inside(main, demo, *common, "name=verifier_one")
    assert alone.returncode == 0, alone.stderr
    done = train(demo, *common, "name=verifier_two", *DDP)
    one, two = run_of(demo, "verifier_one"), run_of(demo, "verifier_two")
    is_written_once(two, done.stdout)
    torch.testing.assert_close(weights(two), weights(one), atol=1e-3, rtol=0)
    for mine, others in zip(curves(two), curves(one), strict=True):
        assert mine == pytest.approx(others, abs=1e-5)


# The demo's answers earn nothing yet, so its gradients are rounding errors, of which Adam makes whole steps: small ones here.
LORA = "policy.lora={r: 4}"
STEADY = ("+exp=grpo_demo", "+debug=demo", "optim.lr=1e-7")


def grpo_alone(demo, name="alone", *overrides):
    done = inside(main, demo, *STEADY, f"name=grpo_{name}", *overrides)
    assert done.returncode == 0, done.stderr
    return run_of(demo, f"grpo_{name}")


def is_the_same_run(two, one):
    assert one.name == two.name
    tables = [pq.read_table(folder / "completions.parquet").to_pylist() for folder in (one, two)]
    for row in (row for table in tables for row in table):
        row["advantage"] = pytest.approx(row["advantage"], abs=1e-5)
    assert tables[0] == tables[1]
    torch.testing.assert_close(weights(two), weights(one), atol=1e-5, rtol=0)
    figures = [json.loads((folder / "metrics.json").read_text()) for folder in (one, two)]
    assert figures[0]["sampled"] == figures[1]["sampled"]


@pytest.mark.slow
@pytest.mark.faults
def test_grpo_ends_when_a_rank_is_killed_and_goes_on_as_if_it_had_not(demo, fault):
    overrides = (*STEADY, "name=grpo_ddp", *DDP)
    command = [sys.executable, "-m", "erv.train", *overrides]
    process = subprocess.Popen(
        command, cwd=demo, env=environment(demo), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )  # fmt: skip
    deadline = time.time() + 120
    while not list(demo.glob("runs/demo/grpo_ddp/*/checkpoints/*.json")):
        assert process.poll() is None, "it ended before its first checkpoint"
        assert time.time() < deadline
        time.sleep(0.02)
    (rank,) = children(process.pid)
    os.kill(rank, signal.SIGKILL)
    printed = process.communicate(timeout=20)[1].decode()
    assert process.returncode == 1
    assert "rank 1 was ended by SIGKILL" in printed
    two = run_of(demo, "grpo_ddp")
    assert not (two / "metrics.json").exists()
    done = train(demo, *overrides)
    assert done.stdout.count(f"done: {two}") == 1
    is_the_same_run(two, grpo_alone(demo))
    fault(
        "SIGKILL of a rank",
        "all ranks end, exit 1",
        "ended within 20 s; then the same completions, weights within 1e-5",
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fsdp2", "deepspeed_z2", "deepspeed_z3"])
def test_grpo_with_weights_shared_out(demo, name):
    done = train(demo, *STEADY, f"name=grpo_{name}", f"trainer={name}", *DDP[1:])
    two = run_of(demo, f"grpo_{name}")
    is_written_once(two, done.stdout)
    is_the_same_run(two, grpo_alone(demo))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fsdp2", "deepspeed_z2", "deepspeed_z3"])
def test_adapters_with_weights_shared_out(demo, name):
    train(demo, *STEADY, LORA, f"name=lora_{name}", f"trainer={name}", *DDP[1:])
    is_the_same_run(run_of(demo, f"lora_{name}"), grpo_alone(demo, "lora", LORA))


def test_a_rank_draws_its_own_part_of_every_batch():
    whole = StepBatches([1.0] * 20, 6, 7, 3)
    parts = [StepBatches([1.0] * 20, 6, 7, 3) for _ in range(3)]
    for rank, part in enumerate(parts):
        part.replica = (rank, 3)
    for batch, *own_parts in zip(whole, *parts, strict=True):
        assert [len(part) for part in own_parts] == [2, 2, 2]
        assert [draw for part in own_parts for draw in part] == batch
    for count in (1, 7, 9):
        shares = [list(DevBatches(count, 4, (rank, 3))) for rank in range(3)]
        assert {len(share) for share in shares} == {len(DevBatches(count, 4))}
        assert [i for batch in zip(*shares, strict=True) for part in batch for i in part] == list(range(count))
    assert [replica_part("ab", (rank, 3)) for rank in range(3)] == [["a"], ["b"], []]


def trainer(**keys):
    return {"trainer": {"accelerator": "cpu", "strategy": {"_target_": "erv.distributed.DDP"}, **keys}}


def test_what_cannot_be_shared_out_is_refused(tmp_path):
    done = inside(main, tmp_path, "+exp=grpo_demo", "+debug=demo", *DDP, "trainer.devices=3")
    assert done.returncode == 2
    assert "algo.batch_size=16 for 3 processes" in done.stderr
    assert "set algo.batch_size=15 or 18, or another trainer.devices" in done.stderr
    assert not (tmp_path / "runs").exists()
    assert trainer_problems({**trainer(devices=2, num_nodes=4), "algo": {"batch_size": 16}}) == []
    (alone,) = trainer_problems(trainer(devices=2, strategy="auto"))
    assert "set trainer=ddp" in alone
    zero = trainer(devices=2, strategy={"_target_": "erv.distributed.DeepSpeed", "stage": 3})
    assert "trainer=deepspeed_z3 shares a policy's weights out" in trainer_problems({**zero, "stage": "towers"})[0]
    shards = trainer(devices=2, strategy={"_target_": "erv.distributed.FSDP"})
    (verifier,) = trainer_problems({**shards, "stage": "verifier"})
    assert "in the stages sft and grpo; got stage=verifier" in verifier
    (towers,) = trainer_problems({**shards, "stage": "sft", "policy": {"train": ["language_model", "audio_tower"]}})
    assert "trains no towers, and policy.train has audio_tower" in towers
    with pytest.raises(OutOfMemory, match=r"cannot begin again alone: set algo.token_budget=8"):
        smaller_budget(16, [0, 1], "out of memory", collective_passes=True)


@pytest.mark.parametrize("stage", [2, 3])
def test_deepspeed_takes_the_config(stage, monkeypatch):
    from deepspeed.runtime.config import DeepSpeedConfig

    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        tree = OmegaConf.to_container(compose("train", ["+exp=grpo_dfew", f"trainer=deepspeed_z{stage}"]).trainer)
    settings, precision = tree["strategy"], "bf16-mixed"
    assert settings.pop("_target_") == "erv.distributed.DeepSpeed"
    strategy = DeepSpeed(**settings)
    strategy._lightning_module = SimpleNamespace(optim=OptimizerSettings(1.0, max_grad_norm=0.5), trainer=None)
    monkeypatch.setattr(DeepSpeed, "precision_plugin", SimpleNamespace(precision=precision))
    monkeypatch.setattr(DeepSpeedStrategy, "_format_batch_size_and_grad_accum_config", lambda self: None)
    strategy._format_config()
    found = DeepSpeedConfig(strategy.config)
    assert (found.zero_optimization_stage, found.zero_config.overlap_comm) == (stage, False)
    assert (found.bfloat16_config.enabled, found.bfloat16_config.check_grad_overflow) == (True, True)
    assert found.gradient_clipping == 0.5


def test_deepspeed_of_another_version_is_refused(monkeypatch):
    deepspeed_internals.require_tested_version()
    monkeypatch.setattr(deepspeed_internals, "version", lambda package: "0.20.1")
    with pytest.raises(ConfigError, match=r"tested with 0\.19; 0\.20\.1 is installed.*or set trainer=fsdp2"):
        deepspeed_internals.require_tested_version()


def test_a_process_knows_its_rank(monkeypatch):
    for name in ("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "SLURM_PROCID", "SLURM_LOCALID", LEADER):
        monkeypatch.delenv(name, raising=False)
    two = trainer(devices=[4, 5], num_nodes=2)
    assert Ranks.of(two) == Ranks(0, 0, 4, 4)
    monkeypatch.setenv("SLURM_PROCID", "3")
    monkeypatch.setenv("SLURM_LOCALID", "1")
    assert Ranks.of(two) == Ranks(3, 1, 4, 5)
    assert Ranks.of(trainer(devices=1)) == Ranks()  # one of several runs that srun started
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv(LEADER, "1")  # started by Lightning, whatever SLURM says
    assert Ranks.of(two) == Ranks(1, 1, 4, 5)
    monkeypatch.delenv(LEADER)
    monkeypatch.setenv("RANK", "2")
    assert Ranks.of(two).rank == 2
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    monkeypatch.setenv("WORLD_SIZE", "3")
    (message,) = trainer_problems(two)
    assert "torchrun started 3 processes and the config says 4" in message
