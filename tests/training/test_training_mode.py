"""What trains is in training mode and what is frozen in eval mode, asked inside the steps of real `erv.train` runs."""

import json
import subprocess
import sys

import pytest
from commands import run_of, warm

VERIFIER = ["+exp=verifier_demo", "+debug=demo"]


def steps(root, name, *overrides, stop=None, memory=False):
    """The rows of modes.py for a run; with `stop`, of a run that is ended by SIGTERM in that step and then resumed."""
    env = {**warm(root), **({"MODES_MEMORY": "1"} if memory else {})}
    file = root / f"{name}.jsonl"
    for arguments in [[str(stop)], []] if stop is not None else [[]]:
        command = [sys.executable, "-m", "modes", str(file), *arguments, *overrides, f"name={name}", "group=modes"]
        done = subprocess.run(command, cwd=root, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == (143 if arguments else 0), done.stdout + done.stderr
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert sorted({row["step"] for row in rows}) == [0, 1, 2, 3]  # validation lies between them
    return rows


def check(rows, trained, frozen):
    """Every step: modules with trained weights train; those below the names in `frozen` do not."""
    for row in rows:
        modules = row["modules"]
        assert all(m["training"] for m in modules.values() if m["trained"])
        assert {n.split(".")[1] for n, m in modules.items() if m["trained"] and "." in n} == trained
        below = [m for n, m in modules.items() if n.startswith(tuple(f"{part}." for part in frozen))]
        assert bool(below) == bool(frozen)
        assert not any(m["training"] for m in below)


POLICY = {"language_model", "mm_projector", "audio_projector", "bert_gate"}
FROZEN = ["model.vision_tower", "model.audio_tower", "model.bert_model"]


def test_sft_from_a_checkpoint_with_adapters_and_after_a_resume(demo):
    checkpoint = "policy.checkpoint=runs/demo/towers"
    base = [
        "+exp=sft_demo",
        "+debug=demo",
        checkpoint,
        "verifier.model.checkpoint=runs/demo/verifier",
        "algo.batch_size=8",
    ]
    adapted = steps(demo, "adapted", *base, "policy.lora={r: 4, lora_dropout: 0.1}", "checkpoint.every=2", stop=2)
    check(adapted, POLICY, FROZEN)
    assert all(row["dropout"] and all(row["dropout"]) for row in adapted)
    plain = steps(demo, "plain", *base, memory=True)
    saving = steps(demo, "saving", *base, "policy.gradient_checkpointing=true", memory=True)
    check(saving, POLICY, FROZEN)
    assert all(row["layers"] == [True, True] for row in saving)
    assert saving[1]["bytes"] < 0.9 * plain[1]["bytes"]


def test_grpo(demo):
    base = [
        "+exp=grpo_demo",
        "+debug=demo",
        "policy.checkpoint=runs/demo/sft",
        "verifier.model.checkpoint=runs/demo/verifier",
    ]
    check(steps(demo, "grpo", *base, stop=1), POLICY, [*FROZEN, "reference"])


@pytest.mark.slow
def test_grpo_with_gradient_checkpointing(demo):
    base = [
        "+exp=grpo_demo",
        "+debug=demo",
        "policy.checkpoint=runs/demo/sft",
        "verifier.model.checkpoint=runs/demo/verifier",
    ]
    saving = steps(demo, "grpo_saving", *base, "policy.gradient_checkpointing=true", memory=True)
    plain = steps(demo, "grpo_plain", *base, memory=True)
    check(saving, POLICY, [*FROZEN, "reference"])
    assert saving[1]["bytes"] < 0.95 * plain[1]["bytes"]


def test_grpo_refuses_adapters_with_dropout(demo):
    command = [sys.executable, "-m", "erv.train", "+exp=grpo_demo", "+debug=demo", "policy.lora={lora_dropout: 0.1}"]
    done = subprocess.run(command, cwd=demo, env=warm(demo), capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "got policy.lora.lora_dropout=0.1: set it to 0 or leave it out" in done.stderr


@pytest.mark.parametrize("source", [pytest.param("config", marks=pytest.mark.slow), "checkpoint"])
def test_a_verifier_trains_with_its_dropout(demo, source):
    chosen = []
    if source == "checkpoint":
        chosen = ["verifier=roberta_base", f"verifier.model.checkpoint={run_of(demo, 'verifier')}/model"]
    rows = steps(demo, f"verifier_{source}", *VERIFIER, *chosen, "checkpoint.every=2", stop=1)
    for row in rows:
        assert all(m["training"] for m in row["modules"].values())
        assert row["dropout"]
        assert all(row["dropout"])


def test_towers(demo):
    rows = steps(demo, "towers", "+exp=towers_demo", "+debug=demo")
    check(rows, {"vision_tower", "audio_tower", "picture", "voice", "both"}, ["model.language_model"])
