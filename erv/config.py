"""From a composed Hydra config to objects: `check` it whole, sign it, build it. The only place that instantiates."""

from __future__ import annotations

import difflib
import hashlib
import inspect
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import is_dataclass
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from omegaconf import OmegaConf

from erv import secrets

# A config from a stranger runs no code: nothing outside these packages is ever instantiated.
ALLOWED_TARGETS = ("erv.", "torch.", "lightning.", "transformers.", "peft.")
# Where results are written and on what machine they are made does not change them.
# The corpus counts by what its clips are, wherever it lies: an identity of its own. A star stands for any one key.
_CALLS = ("cache", "concurrency", "timeout_s", "attempts", "backoff_s", "max_backoff_s", "breaker", "price",
          "key_variable")  # fmt: skip
UNSIGNED = (
    "name", "group", "paths", "logger", "launch", "checkpoint", "data", "media.cache", "media.workers", "media.timeout_s",
    "media.memory_gb", "loader.workers", "loader.prefetch", "trainer.accelerator", "trainer.devices", "trainer.num_nodes",
    "trainer.enable_progress_bar", "dry_run", "mode", "results", "max_failed", "task.input",
    *(f"llm.{key}" for key in _CALLS), *(f"judge.*.llm.{key}" for key in _CALLS), "judge.*.cache", "judge.*.batch_size",
    "judge.*.device", "judge.*.sheets", "evaluation.batch_size", "evaluation.max_failed", "evaluation.on_leak", "predictions",
    "partial", "devices", "shard", "export_human_task", "human_items",
)  # fmt: skip
ROOT_KEYS = (
    "name", "group", "stage", "seed", "data", "media", "augment", "loader", "policy", "verifier", "reward", "judge", "algo",
    "optim", "evaluation", "metrics", "trainer", "logger", "paths", "launch", "checkpoint", "task", "llm", "mode", "results",
    "dry_run", "max_failed", "predictions", "partial", "taxonomy", "devices", "shard", "export_human_task", "human_items",
    "clips", "gold", "output",
)  # fmt: skip
_INSTANTIATION_KEYS = {"_target_", "_recursive_", "_convert_", "_partial_", "_args_"}


class ConfigError(Exception):
    """A config that cannot be run; the message lists every problem and is all the user needs to see."""


def did_you_mean(key: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown key: the nearest known ones, or nothing."""
    near = difflib.get_close_matches(key, list(known), n=2, cutoff=0.6)
    return f"; did you mean {' or '.join(repr(k) for k in near)}?" if near else ""


def plain(cfg: Any) -> Any:
    """The config as dicts, lists and values, every interpolation resolved; raises ConfigError for what is missing."""
    from omegaconf.errors import OmegaConfBaseException

    try:
        return OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True) if OmegaConf.is_config(cfg) else cfg
    except OmegaConfBaseException as error:
        raise ConfigError(f"the config cannot be resolved: {error}") from error


def check(cfg: Any, provided: Iterable[str] = ()) -> None:
    """Bind every `_target_` of `cfg` to its signature; raise one ConfigError that lists all problems.

    `provided` names the constructor parameters that the command passes at run time (the policy, the taxonomy, …): they
    need no key. Plain Hydra lets a typo inside an experiment file pass, because a file may add keys.
    """
    tree = plain(cfg)
    problems = [f"unknown key {key!r}{did_you_mean(key, ROOT_KEYS)}" for key in tree if key not in ROOT_KEYS]
    problems += list(_problems(tree, "", set(provided)))
    problems += list(secrets.refused(tree))
    if problems:
        raise ConfigError("\n  ".join(["this config cannot run:", *problems]))


def _problems(node: Any, path: str, provided: set[str]) -> Iterator[str]:
    if isinstance(node, list):
        for index, item in enumerate(node):
            yield from _problems(item, f"{path}{index}.", provided)
    if not isinstance(node, Mapping):
        return
    if "_target_" in node:
        yield from _binding_problems(node, path, provided)
    for key, value in node.items():
        yield from _problems(value, f"{path}{key}.", provided)


def _binding_problems(node: Mapping[str, Any], path: str, provided: set[str]) -> Iterator[str]:
    try:
        target = locate(node["_target_"])
        parameters = inspect.signature(target).parameters
    except (ConfigError, ValueError) as error:
        yield f"{path}_target_: {error}"
        return
    if node["_target_"].startswith("erv."):
        yield from _type_problems(target, node, path)
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return
    given = set(node) - _INSTANTIATION_KEYS
    for key in sorted(given - set(parameters)):
        yield f"unknown key '{path}{key}'{did_you_mean(f'{path}{key}', [f'{path}{p}' for p in parameters])}"
    for name, parameter in parameters.items():
        if parameter.default is parameter.empty and name not in given | provided:
            yield f"missing key '{path}{name}' (required by {node['_target_']})"


def _type_problems(target: Any, node: Mapping[str, Any], path: str) -> Iterator[str]:
    """Plain values that are not of the type their parameter says; a word where a number belongs, above all."""
    if is_dataclass(target):  # of a field that is inherited, the type is known where the field was written
        hints = get_type_hints(target)
    else:
        hints = get_type_hints(target.__init__ if inspect.isclass(target) else target)
    parameters = inspect.signature(target).parameters
    for key, hint in hints.items():
        if key in node and key in parameters and not _fits(node[key], hint):
            yield f"{path}{key} must be {_spoken(hint)}, got {node[key]!r}"


def _fits(value: Any, hint: Any) -> bool:
    if get_origin(hint) is Literal:
        return value in get_args(hint)
    if get_origin(hint) in (Union, UnionType):
        return any(_fits(value, option) for option in get_args(hint))
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint) if hint in (bool, str, NoneType) else True


def _spoken(hint: Any) -> str:
    if get_origin(hint) is Literal:
        return f"one of {', '.join(map(str, get_args(hint)))}"
    if get_origin(hint) in (Union, UnionType):
        return " or ".join(_spoken(option) for option in get_args(hint))
    names = {float: "a number", int: "a whole number", bool: "true or false", str: "a text", NoneType: "null"}
    return names.get(hint, str(hint))


def locate(target: str) -> Any:
    """The class or function that a `_target_` names; ConfigError when it is outside the allowed packages or absent."""
    if not target.startswith(ALLOWED_TARGETS):
        raise ConfigError(f"{target!r} is not allowed: targets must begin with {', '.join(ALLOWED_TARGETS)}")
    from hydra.utils import get_object

    try:
        return get_object(target)
    except Exception as error:  # Hydra wraps whatever the import raised; the reason is in its text
        raise ConfigError(f"{target!r} cannot be imported: {error}") from error


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
    for dotted in UNSIGNED:
        _pop(tree, dotted.split("."))
    text = json.dumps([tree, dict(identities or {})], sort_keys=True, ensure_ascii=False)
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
