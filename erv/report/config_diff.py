"""The settings in which runs differ: the columns of the table, and the names of its rows."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

Settings = Mapping[str, Any]
# What a run is measured with is compared between runs of all stages, but for what is only trained on.
MEASURED_WITH = ("data", "media.modalities", "evaluation", "judge", "metrics")
_TRAINED_ON = ("data.limit", "data.dev_limit", "data.dev", "data.weights")
# Keys that may differ between runs of one row: names, paths, and what is not part of the run's signature (* is any).
_NO_SETTINGS = (
    "name",
    "group",
    "stage",
    "paths",
    "logger",
    "launch",
    "checkpoint",
    *(f"media.{key}" for key in ("cache", "workers", "timeout_s", "memory_gb")),
    *(f"loader.{key}" for key in ("workers", "prefetch")),
    *(f"trainer.{key}" for key in ("devices", "accelerator", "num_nodes", "strategy", "enable_progress_bar")),
    *(f"evaluation.{key}" for key in ("batch_size", "max_failed", "on_leak")),
    "partial",
    "devices",
    "shard",
    "export_human_task",
    "human_items",
    "dry_run",
    *(f"judge.*.{key}" for key in ("cache", "batch_size", "device", "sheets", "grammar")),
    *(f"judge.*.llm.{key}" for key in ("cache", "concurrency", "timeout_s", "attempts", "backoff_s", "max_backoff_s")),
    *(f"judge.*.llm.{key}" for key in ("breaker", "price", "key_variable")),
)
# Keys whose value belongs to a seed: settings only where two runs have the same seed otherwise.
OF_A_SEED = (
    "group",
    "policy.checkpoint",
    "verifier.model.checkpoint",
    "verifier.data.files",
    "data.root",
    "data.seed",
    "predictions",
)
SEED = "seed"


def varying(configs: Sequence[Mapping[str, Any]], over: Iterable[str] = (SEED,)) -> list[dict[str, Any]]:
    """Find the keys that vary between configs; returns their values for each config, by dotted key.

    Keys are compared within a stage, since stages share few (predictions made elsewhere count as a stage); what runs are measured
    with is compared between all. A subtree that some configs do not have, or that is of another class there, is one key; the
    keys below it are compared among those that have it. Keys in `over` are averaged over and do not count.
    """
    values: list[dict[str, Any]] = [{} for _ in configs]
    ignored = {*_NO_SETTINGS, *OF_A_SEED, *over}
    with_policy = {i: config for i, config in enumerate(configs) if not config.get("predictions")}
    for key in MEASURED_WITH:
        # predictions made elsewhere were not generated with the settings of `evaluation`
        compared = with_policy if key == "evaluation" else dict(enumerate(configs))
        _compare(key, {i: at(config, key) for i, config in compared.items()}, values, ignored | {*_TRAINED_ON})
    stages: dict[Any, dict[int, Any]] = {}
    for i, config in enumerate(configs):
        stages.setdefault(config.get("stage") if i in with_policy else "predictions", {})[i] = config
    for members in stages.values():
        _compare("", members, values, ignored | {"evaluation", "judge", "metrics"})
    return values


def _compare(path: str, nodes: Mapping[int, Any], values: list[dict[str, Any]], ignored: set[str]) -> None:
    """Add to `values` what differs between `nodes` (index of a config -> its node) at `path` and below."""
    if any(fnmatchcase(path, pattern) for pattern in ignored):
        return
    subtrees = {i: node for i, node in nodes.items() if isinstance(node, Mapping) and node}
    shown = {i: _class_name(node) if i in subtrees else node for i, node in nodes.items()}
    if len({json.dumps(value, sort_keys=True, default=str) for value in shown.values()}) > 1:
        for i, value in shown.items():
            values[i][path] = value
    by_class: dict[str, dict[int, Any]] = {}
    for i, subtree in subtrees.items():
        by_class.setdefault(_class_name(subtree), {})[i] = subtree
    for members in by_class.values():
        for key in dict.fromkeys(key for subtree in members.values() for key in subtree if key != "_target_"):
            children = {i: subtree.get(key) for i, subtree in members.items()}
            _compare(f"{path}.{key}".lstrip("."), children, values, ignored)


def _class_name(subtree: Mapping[str, Any]) -> str:
    return str(subtree.get("_target_", "on")).rsplit(".", 1)[-1]


def at(config: Any, key: str) -> Any:
    """The value at a dotted key, None where there is none."""
    for part in key.split("."):
        config = config.get(part) if isinstance(config, Mapping) else None
    return config


def of_a_seed(config: Mapping[str, Any]) -> dict[str, Any]:
    """The values of OF_A_SEED; a checkpoint counts by the name of its run, without the signature in its path."""
    values = {key: at(config, key) for key in OF_A_SEED}
    for key, value in values.items():
        if key.endswith("checkpoint") and isinstance(value, str) and Path(value).name == "model":
            values[key] = str(Path(value).parent.parent)
    return values


def short(keys: Iterable[str], words: int) -> dict[str, str]:
    """Shorten each key to its last `words` words, or as many as distinguish it from the others."""
    unique = list(dict.fromkeys(keys))
    result = {}
    for key in unique:
        path = key.split(".")
        tails = (".".join(path[-n:]) for n in range(min(words, len(path)), len(path) + 1))
        result[key] = next((t for t in tails if sum(f".{k}".endswith(f".{t}") for k in unique) == 1), key)
    return result


def as_text(value: Any) -> str:
    """A setting as a cell of a table."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return "+".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def flat(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every dotted key of a config with its value."""
    if isinstance(node, Mapping) and node:
        for key, value in node.items():
            yield from flat(value, f"{prefix}{key}.")
    else:
        yield prefix.rstrip("."), node
