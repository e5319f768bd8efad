"""From a composed Hydra config to objects: `check` it whole, sign it, build it. The only place that instantiates."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from omegaconf import OmegaConf

from erv.config.targets import modern, signed
from erv.config.validate import ConfigError as ConfigError
from erv.config.validate import at, problems
from erv.config.validate import did_you_mean as did_you_mean
from erv.config.validate import locate as locate
from erv.utils import secrets

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
ROOT_KEYS = (
    "name", "group", "stage", "seed", "data", "media", "augment", "loader", "policy", "verifier", "reward", "judge", "algo",
    "optim", "evaluation", "metrics", "trainer", "logger", "paths", "launch", "checkpoint", "task", "llm", "mode", "results",
    "dry_run", "max_failed", "predictions", "partial", "taxonomy", "devices", "shard", "export_human_task", "human_items",
    "clips", "gold", "output",
)  # fmt: skip


def plain(cfg: Any) -> Any:
    """The config as dicts, lists and values, every interpolation resolved; raises ConfigError for what is missing."""
    return _contained(cfg, throw_on_missing=True)


def _contained(cfg: Any, throw_on_missing: bool) -> Any:
    """As dicts, lists and values, with the public names of components."""
    from omegaconf.errors import OmegaConfBaseException

    if not OmegaConf.is_config(cfg):
        return modern(cfg)
    try:
        return modern(OmegaConf.to_container(cfg, resolve=True, throw_on_missing=throw_on_missing))
    except OmegaConfBaseException as error:
        raise ConfigError(f"the config cannot be resolved: {error}") from error


def check(cfg: Any, provided: Iterable[str] = (), origins: Callable[[], Mapping[str, str]] = dict) -> None:
    """Bind every `_target_` of `cfg` to its signature; raise one ConfigError that lists all problems.

    `provided` names the constructor parameters that the command passes at run time (the policy, the taxonomy, …): they
    need no key. `origins` tells which file, or the command line, a key came from. Plain Hydra lets a typo inside an
    experiment file pass, because a file may add keys.
    """
    if found := found_in(cfg, provided, origins):
        raise ConfigError(listed("this config cannot run:", found))


def listed(title: str, problems: Iterable[str]) -> str:
    """A message of several problems, each with a dash."""
    return "\n".join([title, *("  - " + problem.replace("\n", "\n    ") for problem in problems)])


def found_in(cfg: Any, provided: Iterable[str] = (), origins: Callable[[], Mapping[str, str]] = dict) -> list[str]:
    """The problems that `check` raises, a line each."""
    found: list[tuple[str, str]] = list(problems(_contained(cfg, throw_on_missing=False), ROOT_KEYS, set(provided)))
    found += [("", text) for text in secrets.refused(_contained(cfg, throw_on_missing=False))]
    where = origins() if found else {}
    # a debug preset is for every stage, and shrinks what some of them do not have
    found = [(key, text) for key, text in found if "/debug/" not in where.get(key, "")]
    return [f"{text} (set in {where[key]})" if key in where else text for key, text in found]


def build(node: Any, **provided: Any) -> Any:
    """Instantiate the `_target_` of `node`, nested ones first, with `provided` added to its arguments."""
    from hydra.utils import instantiate

    tree = plain(node)
    for target in _targets(tree):
        locate(target)
    # Hydra would turn a provided record into a config of its own; a partial never sees it
    make = instantiate({**tree, "_partial_": True}, _convert_="all")
    try:
        return make(**provided)
    except ValueError as error:  # a constructor that refuses a setting
        raise ConfigError(f"{tree['_target_']}: {error}") from error


def _targets(node: Any) -> Iterator[str]:
    for value in node.values() if isinstance(node, Mapping) else node if isinstance(node, list) else ():
        yield from _targets(value)
    if isinstance(node, Mapping) and "_target_" in node:
        yield node["_target_"]


def wanted(node: Any, names: Iterable[str]) -> list[str]:
    """Which of `names` the target of `node` takes as parameters: what the command has to make and provide."""
    parameters = inspect.signature(locate(plain(node)["_target_"])).parameters
    return [name for name in names if name in parameters]


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
