"""`--help`: what a command does, its keys and the experiments, as a page. Reads YAML only, so that it answers at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from erv.config.composition import experiments, first_comment

_COLUMN = 30
_HIDDEN = ("hydra", "paths", "debug", "exp", "preset", "ablation")


def page(name: str, doc: str, conf: Path) -> str:
    """The page of the command `erv.<name>`; `doc` is its module's docstring."""
    file = conf / f"{name}.yaml"
    tree = yaml.safe_load(file.read_text())
    lines = [doc.strip(), ""]
    if "exp" in _groups_beside(conf) and name in ("train", "evaluate"):
        mine = {e: said for e, said in experiments().items() if e.startswith("eval") == (name == "evaluate")}
        lines += ["experiments, +exp=NAME", *_rows(mine), ""]
    for group, title in (("ablation", "what an experiment leaves out or changes, +ablation=NAME"),):
        if name == "train" and (conf / group).is_dir():
            lines += [title, *_rows({f.stem: first_comment(f) for f in sorted((conf / group).glob("*.yaml"))}), ""]
    lines += ["groups, GROUP=NAME; all their keys can be set, GROUP.KEY=VALUE", *_rows(dict(_groups(tree, conf))), ""]
    lines += ["keys, KEY=VALUE", *_rows(dict(_keys(file, tree))), ""]
    lines += [
        "-m                              a grid: KEY=1,2,3 for every combination; launch.devices=[0,1] runs two jobs at once",
        "--cfg job --resolve             print the whole config and stop",
        "--config-dir FOLDER             configs of your own beside these",
        "ERV_RUNS, ERV_DATA, ERV_CACHE   where runs, data sets and cached features lie (runs, data, cache)",
    ]  # fmt: skip
    return "\n".join(lines)


def _groups_beside(conf: Path) -> list[str]:
    return sorted(folder.name for folder in conf.iterdir() if folder.is_dir())


def _groups(tree: Mapping[str, Any], conf: Path) -> Iterator[tuple[str, str]]:
    """The groups that the command composes, with their options; the chosen one stands first."""
    for entry in tree.get("defaults", ()):
        if not isinstance(entry, Mapping):
            continue
        group, chosen = next(iter(entry.items()))
        if group.startswith("override") or group in _HIDDEN:
            continue
        options = sorted(file.stem for file in (conf / group).glob("*.yaml"))
        rest = [option for option in options if option != chosen]
        if len(options) > 1 or chosen is None:
            yield group, " ".join([f"[{chosen or 'none'}]", *rest])


def _keys(file: Path, tree: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The command's own keys with their values, and the comments beside them."""
    comments = {}
    for line in file.read_text().splitlines():
        text, _, comment = line.partition(" # ")
        comments[text.split(":")[0].strip()] = comment.strip()
    for key, value in tree.items():
        if key == "defaults" or (isinstance(value, Mapping) and "_target_" in value):
            continue
        for name, inner in value.items() if isinstance(value, Mapping) else [(None, value)]:
            shown = "" if inner in (None, "???") else f"[{inner}] "
            yield (
                key if name is None else f"{key}.{name}",
                f"{shown}{comments.get(name or key) or comments.get(key, '')}",
            )


def _rows(rows: Mapping[str, str]) -> list[str]:
    return [f"  {name:<{_COLUMN}}{text}".rstrip() for name, text in rows.items()]
