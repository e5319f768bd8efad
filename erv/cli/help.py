"""`--help`: a page with what a command does, its experiments, groups and keys.

Reads the YAML files only: importing Hydra and torch would take seconds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from erv.config.composition import experiments, first_comment

_COLUMN = 30  # characters of the first column
_HIDDEN = ("hydra", "paths", "debug", "exp", "preset", "ablation")  # groups that are not listed with the others


def help_page(command: str, doc: str, conf: Path) -> str:
    """Render the page of `python -m erv.<command>`; `doc` is the docstring of its module, `conf` the folder of configs."""
    file = conf / f"{command}.yaml"
    tree = yaml.safe_load(file.read_text())
    lines = [doc.strip(), ""]
    if (conf / "exp").is_dir() and command in ("train", "evaluate"):
        evaluates = command == "evaluate"
        rows = {name: text for name, text in experiments().items() if name.startswith("eval") == evaluates}
        lines += ["experiments, +exp=NAME", *_format(rows), ""]
    if (conf / "ablation").is_dir() and command == "train":
        rows = {path.stem: first_comment(path) for path in sorted((conf / "ablation").glob("*.yaml"))}
        lines += ["what an experiment leaves out or changes, +ablation=NAME", *_format(rows), ""]
    lines += [
        "groups, GROUP=NAME; all their keys can be set, GROUP.KEY=VALUE",
        *_format(dict(_groups(tree, conf))),
        "",
        "keys, KEY=VALUE",
        *_format(dict(_keys(file, tree))),
        "",
        "-m                              a grid: KEY=1,2,3 for every combination; launch.devices=[0,1] runs two jobs at once",
        "--cfg job --resolve             print the whole config and stop",
        "--config-dir FOLDER             configs of your own beside these",
        "ERV_RUNS, ERV_DATA, ERV_CACHE   where runs, data sets and cached features lie (runs, data, cache)",
    ]
    return "\n".join(lines)


def _groups(tree: Mapping[str, Any], conf: Path) -> Iterator[tuple[str, str]]:
    """Yield each group of the defaults list with its options, the default one first in brackets."""
    for entry in tree.get("defaults", ()):
        if not isinstance(entry, Mapping):
            continue
        group, default = next(iter(entry.items()))
        if group.startswith("override") or group in _HIDDEN:
            continue
        options = sorted(file.stem for file in (conf / group).glob("*.yaml"))
        others = [option for option in options if option != default]
        if len(options) > 1 or default is None:
            yield group, " ".join([f"[{default or 'none'}]", *others])


def _keys(file: Path, tree: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield each dotted key that the command's own file sets, with its value in brackets and the comment beside it."""
    comments = {}
    for line in file.read_text().splitlines():
        text, _, comment = line.partition(" # ")
        comments[text.split(":")[0].strip()] = comment.strip()
    for key, value in tree.items():
        if key == "defaults" or (isinstance(value, Mapping) and "_target_" in value):
            continue
        for subkey, leaf in value.items() if isinstance(value, Mapping) else [(None, value)]:
            default = "" if leaf in (None, "???") else f"[{leaf}] "
            comment = comments.get(subkey or key) or comments.get(key, "")
            yield (key if subkey is None else f"{key}.{subkey}"), f"{default}{comment}"


def _format(rows: Mapping[str, str]) -> list[str]:
    return [f"  {name:<{_COLUMN}}{text}".rstrip() for name, text in rows.items()]
