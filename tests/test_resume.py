"""A run that was killed and goes on is, to the last bit, the run that was not: GRPO and SFT, whole and by LoRA."""

import signal

import pyarrow.parquet as pq
import pytest
from commands import interrupted, run_of, train

from erv.metrics.curves import read_curves

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

    def of(stage, lora):
        if (stage, lora) not in made:
            name = f"whole_{stage}_{lora}"
            train(demo, *STAGES[stage], *[LORA] * lora, f"name={name}")
            made[stage, lora] = run_of(demo, name)
        return made[stage, lora]

    return of


def same(killed, whole):
    """Curves, completions and weights; what a run did again counts once."""
    assert killed.name == whole.name
    weights = [(folder / "model" / "model.safetensors").read_bytes() for folder in (killed, whole)]
    assert weights[0] == weights[1]
    assert read_curves(killed) == read_curves(whole)
    if (whole / "completions.parquet").exists():
        tables = [pq.read_table(folder / "completions.parquet") for folder in (killed, whole)]
        assert tables[0].equals(tables[1])


@pytest.mark.parametrize(
    ("stage", "lora", "moment"),
    [
        ("grpo", False, "batch:2"),
        ("grpo", True, "batch:3"),
        ("grpo", False, "half:1"),
        ("grpo", True, "undeclared:2"),
        ("sft", False, "batch:5"),
        ("sft", True, "written:2"),
    ],
)
def test_killed_and_taken_up_again(demo, whole, stage, lora, moment):
    name = f"{stage}_{lora}_{moment.replace(':', '_')}"
    overrides = (*STAGES[stage], *[LORA] * lora, f"name={name}")
    assert interrupted(demo, moment, *overrides).returncode == -signal.SIGKILL
    assert not (run_of(demo, name) / "metrics.json").exists()
    train(demo, *overrides)
    same(run_of(demo, name), whole(stage, lora))
    left = {file.name for file in (run_of(demo, name) / "checkpoints").iterdir()}
    assert left == {file.name for file in (whole(stage, lora) / "checkpoints").iterdir()}
