"""Check a composed config as a whole before anything runs, without importing what it names."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import NoneType, UnionType
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin

from erv.config.instantiate import resolved
from erv.config.schema import GROUPS, ROOT, SECTIONS, STAGES, TRAINER_ARGUMENTS_SET
from erv.config.targets import parameters_of
from erv.errors import ConfigError, did_you_mean
from erv.utils import secrets

MISSING = "???"
# One folder's name: nothing that leads out of the folder it is in.
_FOLDER_NAME = re.compile(r"\w[\w.+=@,-]*")
_INSTANTIATION_KEYS = {"_target_", "_recursive_", "_convert_", "_partial_", "_args_"}


class Problem(NamedTuple):
    """What is wrong, and with which dotted key."""

    key: str
    text: str


def check(cfg: Any, provided: Iterable[str] = (), origins: Callable[[], Mapping[str, str]] = dict) -> None:
    """Raise one ConfigError that lists all problems of a config.

    Every `_target_` is bound to its parameters. Plain Hydra lets a typo inside an experiment file pass, because a file may
    add keys.

    Args:
        provided: constructor parameters that the command passes at run time (the policy, the taxonomy, …), which need no key.
        origins: tells which file, or the command line, each key came from.
    """
    if texts := problems_of(cfg, provided, origins):
        raise ConfigError(as_list("this config cannot run:", texts))


def as_list(title: str, texts: Iterable[str]) -> str:
    """A message of several problems, each with a dash."""
    return "\n".join([title, *("  - " + text.replace("\n", "\n    ") for text in texts)])


def problems_of(cfg: Any, provided: Iterable[str] = (), origins: Callable[[], Mapping[str, str]] = dict) -> list[str]:
    """The problems that `check` raises, a text each."""
    tree = resolved(cfg, throw_on_missing=False)
    problems = [*problems_in(tree, ROOT, set(provided)), *(Problem("", text) for text in secrets.refused(tree))]
    origin = origins() if problems else {}
    # a debug preset is made for every stage, and shrinks what some of them do not have
    problems = [problem for problem in problems if "/debug/" not in origin.get(problem.key, "")]
    return [f"{text} (set in {origin[key]})" if key in origin else text for key, text in problems]


def problems_in(tree: Mapping[str, Any], root_keys: Iterable[str], provided: set[str]) -> Iterator[Problem]:
    """All that is wrong with a resolved config."""
    yield from _unknown_keys(tree, "", root_keys)
    for section, keys in SECTIONS.items():
        if isinstance(node := at(tree, section), Mapping):
            yield from _unknown_keys(node, f"{section}.", keys)
    for group in GROUPS:
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
    for key, instead in TRAINER_ARGUMENTS_SET.items():
        if key in (tree.get("trainer") or {}):
            hint = f"; set {instead} instead" if instead else ""
            yield Problem(f"trainer.{key}", f"trainer.{key} is set by the program, leave it out{hint}")
    for key in ("name", "group"):
        if (value := tree.get(key, MISSING)) != MISSING and not _FOLDER_NAME.fullmatch(str(value)):
            yield Problem(
                key,
                f"{key} is a folder's name: letters, digits and any of _ . + = @ , - after the first; got {value!r}",
            )
    yield from _problems_below(tree, "", provided)


def at(tree: Any, dotted: str) -> Any:
    """The value at a dotted key; None where there is none."""
    for key in dotted.split("."):
        tree = tree.get(key) if isinstance(tree, Mapping) else None
    return tree


def _unknown_keys(node: Mapping[str, Any], path: str, keys: Iterable[str]) -> Iterator[Problem]:
    names = [f"{path}{key}" for key in keys]
    for key in node:
        if (name := f"{path}{key}") not in names:
            yield Problem(name, f"unknown key {name!r}{did_you_mean(name, names)}")


def _problems_below(node: Any, path: str, provided: set[str]) -> Iterator[Problem]:
    if isinstance(node, list):
        for index, item in enumerate(node):
            yield from _problems_below(item, f"{path}{index}.", provided)
    if not isinstance(node, Mapping):
        return
    if "_target_" in node:
        yield from _problems_of_call(node, path, provided)
    for key, value in node.items():
        if value == MISSING:
            yield Problem(f"{path}{key}", f"missing value '{path}{key}': set {path}{key}=…")
        yield from _problems_below(value, f"{path}{key}.", provided)


def _problems_of_call(node: Mapping[str, Any], path: str, provided: set[str]) -> Iterator[Problem]:
    """What is wrong with a node as the arguments of its `_target_`."""
    try:
        parameters = parameters_of(node["_target_"])
    except ConfigError as error:
        yield Problem(f"{path}_target_", f"{path}_target_: {error}")
        return
    arguments = {key: value for key, value in node.items() if key not in _INSTANTIATION_KEYS}
    # the types of other libraries are theirs to check: their annotations say less than they take
    if node["_target_"].startswith("erv."):
        for key, value in arguments.items():
            hint = parameters.by_name[key].hint if key in parameters.by_name else Any
            if value != MISSING and not _fits(value, hint):
                yield Problem(f"{path}{key}", f"{path}{key} must be {_in_words(hint)}, got {value!r}")
    if parameters.takes_any:
        return
    yield from _unknown_keys(arguments, path, parameters.by_name)
    for name, parameter in parameters.by_name.items():
        if parameter.required and name not in arguments.keys() | provided:
            yield Problem(f"{path}{name}", f"missing key '{path}{name}' (required by {node['_target_']})")


def _fits(value: Any, hint: Any) -> bool:
    """Whether a plain value is of a type; True for types that cannot be told here."""
    if get_origin(hint) is Literal:
        return value in get_args(hint)
    if get_origin(hint) in (Union, UnionType):
        return any(_fits(value, option) for option in get_args(hint))
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint) if hint in (bool, str, NoneType) else True


def _in_words(hint: Any) -> str:
    if get_origin(hint) is Literal:
        return f"one of {', '.join(map(str, get_args(hint)))}"
    if get_origin(hint) in (Union, UnionType):
        return " or ".join(_in_words(option) for option in get_args(hint))
    names = {float: "a number", int: "a whole number", bool: "true or false", str: "a text", NoneType: "null"}
    return names.get(hint, str(hint))
