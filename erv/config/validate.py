"""What is wrong with a config, found before anything runs: every `_target_` is bound to its signature."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import is_dataclass
from types import NoneType, UnionType
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

from erv.config.instantiate import _contained
from erv.config.targets import locate
from erv.errors import ConfigError, did_you_mean
from erv.utils import secrets

ROOT_KEYS = (
    "name", "group", "stage", "seed", "data", "media", "augment", "loader", "policy", "verifier", "reward", "judge", "algo",
    "optim", "evaluation", "metrics", "trainer", "logger", "paths", "launch", "checkpoint", "task", "llm", "mode", "results",
    "dry_run", "max_failed", "predictions", "partial", "taxonomy", "devices", "shard", "export_human_task", "human_items",
    "clips", "gold", "output",
)  # fmt: skip

_NAMED = re.compile(r"\w[\w.+=@,-]*")  # a folder's name, of anything that cannot lead out of the folder it is in
MISSING = "???"
_INSTANTIATION_KEYS = {"_target_", "_recursive_", "_convert_", "_partial_", "_args_"}
# Nodes that no constructor stands behind, and the keys they may have.
SECTIONS = {
    "launch": ("threads", "devices", "objective", "watchdog_s", "precision"),
    "checkpoint": ("every",),
    "paths": ("runs", "data", "cache"),
    "verifier": ("model", "data", "gate"),
    "verifier.gate": ("margin_over_baseline", "macro_f1", "labels_per_sentence"),
}
# Groups of which one is chosen: with keys but no target, an experiment set what was then left out.
CHOSEN = ("data", "media", "augment", "loader", "policy", "verifier.model", "reward", "algo", "optim", "evaluation", "metrics",
          "trainer", "task", "llm")  # fmt: skip

# What trains a stage. An ablation names the stage it belongs to, and cannot be laid over an experiment of another.
STAGES = {
    "towers": "erv.training.TowerWarmup",
    "verifier": "erv.training.VerifierTraining",
    "sft": "erv.training.SFT",
    "grpo": "erv.training.GRPO",
}


class Problem(NamedTuple):
    """What is wrong, and with which dotted key."""

    key: str
    text: str


def problems(tree: Mapping[str, Any], root_keys: Iterable[str], provided: set[str]) -> Iterator[Problem]:
    """All that is wrong with a resolved config; `provided` parameters need no key."""
    known = list(root_keys)
    yield from _unknown(tree, "", known)
    for section, keys in SECTIONS.items():
        if isinstance(node := at(tree, section), Mapping):
            yield from _unknown(node, f"{section}.", keys)
    for group in CHOSEN:
        node = at(tree, group)
        if isinstance(node, Mapping) and node and "_target_" not in node:
            first = next(iter(node))
            yield Problem(
                f"{group}.{first}",
                f"{group} has {', '.join(map(repr, node))} but is not chosen (it has no _target_): choose {group}=NAME, or drop "
                "what sets its keys",
            )
    stage, algo = tree.get("stage"), at(tree, "algo._target_")
    if stage in STAGES and algo != STAGES[stage]:
        yield Problem("stage", f"stage is {stage}, which algo={STAGES[stage]} trains; algo is {algo or 'not chosen'}")
    for key in ("name", "group"):
        if (value := tree.get(key, MISSING)) != MISSING and not _NAMED.fullmatch(str(value)):
            yield Problem(
                key,
                f"{key} is a folder's name: letters, digits and any of _ . + = @ , - after the first; got {value!r}",
            )
    yield from _below(tree, "", provided)


def at(tree: Any, dotted: str) -> Any:
    """What stands at a dotted key; None where there is nothing."""
    for key in dotted.split("."):
        tree = tree.get(key) if isinstance(tree, Mapping) else None
    return tree


def _unknown(node: Mapping[str, Any], path: str, known: Iterable[str]) -> Iterator[Problem]:
    names = [f"{path}{key}" for key in known]
    for key in node:
        if (name := f"{path}{key}") not in names:
            yield Problem(name, f"unknown key {name!r}{did_you_mean(name, names)}")


def _below(node: Any, path: str, provided: set[str]) -> Iterator[Problem]:
    if isinstance(node, list):
        for index, item in enumerate(node):
            yield from _below(item, f"{path}{index}.", provided)
    if not isinstance(node, Mapping):
        return
    if "_target_" in node:
        yield from _binding(node, path, provided)
    for key, value in node.items():
        if value == MISSING:
            yield Problem(f"{path}{key}", f"missing value '{path}{key}': set {path}{key}=…")
        yield from _below(value, f"{path}{key}.", provided)


def _binding(node: Mapping[str, Any], path: str, provided: set[str]) -> Iterator[Problem]:
    try:
        target = locate(node["_target_"])
        parameters = inspect.signature(target).parameters
    except (ConfigError, ValueError) as error:
        yield Problem(f"{path}_target_", f"{path}_target_: {error}")
        return
    if node["_target_"].startswith("erv."):
        yield from _types(target, node, path)
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return
    given = {key: value for key, value in node.items() if key not in _INSTANTIATION_KEYS}
    yield from _unknown(given, path, parameters)
    for name, parameter in parameters.items():
        if parameter.default is parameter.empty and name not in given.keys() | provided:
            yield Problem(f"{path}{name}", f"missing key '{path}{name}' (required by {node['_target_']})")


def _types(target: Any, node: Mapping[str, Any], path: str) -> Iterator[Problem]:
    """Plain values that are not of the type their parameter says; a word where a number belongs, above all."""
    if is_dataclass(target):  # of a field that is inherited, the type is known where the field was written
        hints = get_type_hints(target)
    else:
        hints = get_type_hints(target.__init__ if inspect.isclass(target) else target)
    parameters = inspect.signature(target).parameters
    for key, hint in hints.items():
        if key in node and key in parameters and node[key] != MISSING and not _fits(node[key], hint):
            yield Problem(f"{path}{key}", f"{path}{key} must be {_spoken(hint)}, got {node[key]!r}")


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
