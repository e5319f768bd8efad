"""The keys of a config and what holds for each: which group it is, whether it changes a run's result.

What a group's keys are, its constructor says (`erv.config.validate`); here stands what no constructor knows.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Key:
    """A key of the root config."""

    is_group: bool = False
    """Whether an option of a group is chosen here: an object with a `_target_`."""
    keys: tuple[str, ...] | None = None
    """The keys below it, for a node that is no object."""
    signed: bool = True
    """Whether it changes a run's result and so belongs to its signature. Where results lie and on what machine they are made
    does not; `data` counts by what its clips are, wherever they lie: an identity of its own."""
    unsigned: tuple[str, ...] = ()
    """Keys below it that do not change the result; a star stands for any one key."""


# How a language model is called does not change what it answers; what is asked does.
_CALLS = (
    "cache",
    "concurrency",
    "timeout_s",
    "attempts",
    "backoff_s",
    "max_backoff_s",
    "breaker",
    "price",
    "key_variable",
)
ROOT = {
    "name": Key(signed=False),
    "group": Key(signed=False),
    "stage": Key(),
    "seed": Key(),
    "data": Key(is_group=True, signed=False),
    "media": Key(is_group=True, unsigned=("cache", "workers", "timeout_s", "memory_gb")),
    "augment": Key(is_group=True),
    "loader": Key(is_group=True, unsigned=("workers", "prefetch")),
    "policy": Key(is_group=True),
    "verifier": Key(keys=("model", "data", "gate")),
    "reward": Key(is_group=True),
    "judge": Key(
        unsigned=("*.cache", "*.batch_size", "*.device", "*.sheets", *(f"*.llm.{key}" for key in _CALLS)),
    ),
    "algo": Key(is_group=True),
    "optim": Key(is_group=True),
    "evaluation": Key(is_group=True, unsigned=("batch_size", "max_failed", "on_leak")),
    "metrics": Key(is_group=True),
    "trainer": Key(
        is_group=True,
        unsigned=("accelerator", "devices", "num_nodes", "strategy", "enable_progress_bar"),
    ),
    "callbacks": Key(),
    "logger": Key(signed=False),
    "paths": Key(keys=("runs", "data", "cache"), signed=False),
    "launch": Key(keys=("threads", "devices", "objective", "watchdog_s", "precision"), signed=False),
    "checkpoint": Key(keys=("every",), signed=False),
    "task": Key(is_group=True, unsigned=("input",)),
    "llm": Key(is_group=True, unsigned=_CALLS),
    "mode": Key(signed=False),
    "results": Key(signed=False),
    "dry_run": Key(signed=False),
    "max_failed": Key(signed=False),
    "predictions": Key(signed=False),
    "partial": Key(signed=False),
    "taxonomy": Key(),
    "devices": Key(signed=False),
    "shard": Key(signed=False),
    "export_human_task": Key(signed=False),
    "human_items": Key(signed=False),
    "clips": Key(),
    "gold": Key(),
    "output": Key(),
}
# Nodes further below that are no objects, and the groups there.
SECTIONS = {
    **{name: key.keys for name, key in ROOT.items() if key.keys is not None},
    "verifier.gate": ("margin_over_baseline", "macro_f1", "labels_per_sentence"),
}
GROUPS = (*(name for name, key in ROOT.items() if key.is_group), "verifier.model")
UNSIGNED = (
    *(name for name, key in ROOT.items() if not key.signed),
    *(f"{name}.{below}" for name, key in ROOT.items() for below in key.unsigned),
)
# Keys that are read only where another key has a certain value; elsewhere they are not signed.
READ_WHERE = {"reward.explanation.neutral_margin": ("reward.explanation.neutral_filter", "margin")}
# What trains a stage. An ablation names the stage it belongs to, and cannot be laid over an experiment of another.
STAGES = {
    "towers": "erv.training.TowerWarmup",
    "verifier": "erv.training.VerifierTraining",
    "sft": "erv.training.SFT",
    "grpo": "erv.training.GRPO",
}
# Arguments of the Trainer that the program sets itself, with what a user sets instead.
TRAINER_ARGUMENTS_SET = {
    "max_epochs": "algo.epochs or algo.iterations",
    "logger": "logger=NAME",
    "default_root_dir": "paths.runs",
    "enable_model_summary": None,
    "enable_checkpointing": "checkpoint.every",
    "log_every_n_steps": None,
    "num_sanity_val_steps": None,
    "callbacks": "callbacks=NAME, or +callbacks.NAME._target_=…",
    "use_distributed_sampler": None,
}
# What a command makes and passes to constructors that have a parameter of this name; no key is needed for these.
PROVIDED = (
    "policy",
    "verifier",
    "reward",
    "judge",
    "taxonomy",
    "optim",
    "modalities",
    "seed",
    "texts",
    "labels",
    "verifier_labels",
    "sentences",
    "folder",
    "run_name",
    "group",
    "resolved",
)
