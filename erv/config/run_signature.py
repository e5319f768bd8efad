"""The signature of a run: 12 hex digits over everything that changes its result. It names the run's folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from omegaconf import OmegaConf

from erv.config.instantiate import plain
from erv.config.targets import locate as locate
from erv.config.targets import signed
from erv.config.validate import at
from erv.errors import ConfigError as ConfigError
from erv.errors import did_you_mean as did_you_mean

# Where results are written and on what machine they are made does not change them.
# The corpus counts by what its clips are, wherever it lies: an identity of its own. A star stands for any one key.
_CALLS = ("cache", "concurrency", "timeout_s", "attempts", "backoff_s", "max_backoff_s", "breaker", "price",
          "key_variable")  # fmt: skip


UNSIGNED = (
    "name", "group", "paths", "logger", "launch", "checkpoint", "data", "media.cache", "media.workers", "media.timeout_s",
    "media.memory_gb", "loader.workers", "loader.prefetch", "trainer.accelerator", "trainer.devices", "trainer.num_nodes",
    "trainer.strategy", "trainer.enable_progress_bar", "dry_run", "mode", "results", "max_failed", "task.input",
    *(f"llm.{key}" for key in _CALLS), *(f"judge.*.llm.{key}" for key in _CALLS), "judge.*.cache", "judge.*.batch_size",
    "judge.*.device", "judge.*.sheets", "evaluation.batch_size", "evaluation.max_failed", "evaluation.on_leak", "predictions",
    "partial", "devices", "shard", "export_human_task", "human_items",
)  # fmt: skip


# Keys that came later, with the default that older runs had without them: as long as they keep it, they change no signature.
ADDED: dict[str, Any] = {
    "verifier.data.formats": {name: name for name in ("goemotions", "brighter", "meld", "emobank")},
    "verifier.data.on_unknown": "error",
    "verifier.model.pooling": None,
    **dict.fromkeys(
        (f"verifier.data.files.{name}" for name in ("table", "goemotions", "brighter", "meld", "emobank")),
    ),
}


# Keys whose default has changed without changing what a run computes: the new default is signed as the old one was.
RENEWED: dict[str, tuple[Any, Any]] = {
    "verifier.gate": (
        {"margin_over_baseline": 0.0, "macro_f1": None, "labels_per_sentence": None},
        {"macro_f1": 0.95, "labels_per_sentence": 1.2},
    ),
}


# Keys that are read only where another key has a certain value; elsewhere they are not signed.
READ_WHERE = {"reward.explanation.neutral_margin": ("reward.explanation.neutral_filter", "margin")}


def signature(cfg: Any, identities: Mapping[str, str] | None = None) -> str:
    """12 hex digits over everything that changes a run's result: the name of its folder.

    `identities` maps dotted keys that point at other runs to what those are, so that a run started from another checkpoint
    is another run even when its path is the same.
    """
    # where things lie must not show in the values that are made of paths
    places = {"paths": {key: f"<{key}>" for key in cfg.get("paths") or {}}, "group": "<group>"}
    tree = plain(OmegaConf.merge(cfg, places))
    unread = [key for key, (other, value) in READ_WHERE.items() if at(tree, other) != value]
    for dotted in (*UNSIGNED, *unread):
        _pop(tree, dotted.split("."))
    for dotted, default in ADDED.items():
        if at(tree, dotted) == default:
            _pop(tree, dotted.split("."))
    for dotted, (new, old) in RENEWED.items():
        if at(tree, dotted) == new:
            *parents, last = dotted.split(".")
            at(tree, ".".join(parents))[last] = old
    text = json.dumps([signed(tree), dict(identities or {})], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _pop(tree: Any, keys: Sequence[str]) -> None:
    if not isinstance(tree, dict):
        return
    first, *rest = keys
    if not rest:
        tree.pop(first, None)
    for key in tree if first == "*" else [first]:
        if rest:
            _pop(tree.get(key), rest)
