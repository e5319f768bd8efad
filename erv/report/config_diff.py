"""In which settings runs differ: the columns of the table, and the names of its rows."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

Settings = Mapping[str, Any]
# What a run is measured with: it must be seen wherever it differs, whatever the runs' stages, but for what is only trained on.
MEASURED_WITH = ("data", "media.modalities", "evaluation", "judge", "metrics")
_TRAINED_ON = ("data.limit", "data.dev_limit", "data.dev", "data.weights")
# Keys that differ between runs of one row without being another setting: names, places, and what is not signed (* is any).
_NO_SETTINGS = (
    "name", "group", "stage", "paths", "logger", "launch", "checkpoint", "media.cache", "media.workers", "media.timeout_s",
    "media.memory_gb", "loader.workers", "loader.prefetch", "trainer.devices", "trainer.accelerator", "trainer.num_nodes",
    "trainer.strategy", "trainer.enable_progress_bar", "evaluation.batch_size", "evaluation.max_failed", "evaluation.on_leak",
    "partial", "devices", "shard", "export_human_task", "human_items", "dry_run",
    *(f"judge.*.{key}" for key in ("cache", "batch_size", "device", "sheets", "grammar")),
    *(f"judge.*.llm.{key}" for key in ("cache", "concurrency", "timeout_s", "attempts", "backoff_s", "max_backoff_s", "breaker",
                                       "price", "key_variable")),
)  # fmt: skip
# What is made anew for every seed: told apart only where two runs would have the same seed otherwise.
OF_A_SEED = ("group", "policy.checkpoint", "verifier.model.checkpoint", "verifier.data.files", "data.root", "data.seed",
             "predictions")  # fmt: skip
SEED = "seed"


def varying(configs: Sequence[Mapping[str, Any]], over: Iterable[str] = (SEED,)) -> list[dict[str, Any]]:
    """For each config the values of the keys that vary, by dotted key; the keys in `over` are averaged over and do not count.

    Keys are compared within a stage, since stages share few (answers made elsewhere are one of their own); what runs are
    measured with, between all. A part that some configs do not have is one key, and so is a part that is of another class;
    the keys below it are compared among those that have it.
    """
    found: list[dict[str, Any]] = [{} for _ in configs]
    left_out = {*_NO_SETTINGS, *OF_A_SEED, *over}
    made_here = {i: config for i, config in enumerate(configs) if not config.get("predictions")}
    for key in MEASURED_WITH:
        compared = made_here if key == "evaluation" else dict(enumerate(configs))  # how answers were asked for, here
        _compare(key, {i: at(config, key) for i, config in compared.items()}, found, left_out | {*_TRAINED_ON})
    stages: dict[Any, dict[int, Any]] = {}
    for i, config in enumerate(configs):
        stages.setdefault(config.get("stage") if i in made_here else "predictions", {})[i] = config
    for members in stages.values():
        _compare("", members, found, left_out | {"evaluation", "judge", "metrics"})
    return found


def _compare(path: str, nodes: Mapping[int, Any], found: list[dict[str, Any]], left_out: set[str]) -> None:
    """Note in `found` what differs between `nodes` (index of a config -> its value) at `path` and below."""
    if any(fnmatchcase(path, pattern) for pattern in left_out):
        return
    parts = {i: node for i, node in nodes.items() if isinstance(node, Mapping) and node}
    shown = {i: _class(node) if i in parts else node for i, node in nodes.items()}
    if len({_text(value) for value in shown.values()}) > 1:
        for i, value in shown.items():
            found[i][path] = value
    kinds: dict[str, dict[int, Any]] = {}
    for i, part in parts.items():
        kinds.setdefault(_class(part), {})[i] = part
    for members in kinds.values():
        for key in dict.fromkeys(key for part in members.values() for key in part if key != "_target_"):
            _compare(f"{path}.{key}".lstrip("."), {i: part.get(key) for i, part in members.items()}, found, left_out)


def _class(part: Mapping[str, Any]) -> str:
    return str(part.get("_target_", "on")).rsplit(".", 1)[-1]


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)


def at(config: Any, key: str) -> Any:
    """The value at a dotted key, None where there is none."""
    for part in key.split("."):
        config = config.get(part) if isinstance(config, Mapping) else None
    return config


def of_a_seed(config: Mapping[str, Any]) -> dict[str, Any]:
    """The keys that belong to a seed, checkpoints by the run they come from instead of its folder's signature."""
    values = {key: at(config, key) for key in OF_A_SEED}
    for key, value in values.items():
        if key.endswith("checkpoint") and isinstance(value, str) and Path(value).name == "model":
            values[key] = str(Path(value).parent.parent)
    return values


def short(keys: Iterable[str], words: int) -> dict[str, str]:
    """Each key -> its last `words` words, or as many as it takes to tell it from the others."""
    every = list(dict.fromkeys(keys))
    result = {}
    for key in every:
        path = key.split(".")
        tails = (".".join(path[-n:]) for n in range(min(words, len(path)), len(path) + 1))
        result[key] = next((t for t in tails if sum(f".{k}".endswith(f".{t}") for k in every) == 1), key)
    return result


def spoken(value: Any) -> str:
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
