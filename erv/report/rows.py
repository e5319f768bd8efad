"""Runs grouped into the rows of the table: one row per setting, its runs differing in their seeds."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from erv.evaluation.metrics.significance import average, student
from erv.report import config_diff
from erv.report.runs import Result, finished


@dataclass(frozen=True)
class Figure:
    """A figure of a row, as fractions: its mean over runs, the 95 % interval, the standard deviation (None for one run)."""

    value: float
    interval: tuple[float, float]
    sd: float | None


@dataclass(frozen=True)
class Row:
    """The runs with the same settings, one for each of the values of the keys that are averaged `over`: seeds, and folds."""

    label: str
    runs: list[Result]
    over: Sequence[str] = (config_diff.SEED,)

    @property
    def arm(self) -> str:
        """The arm, as the runs were named."""
        return self.runs[0].arm

    @property
    def settings(self) -> Mapping[str, Any]:
        """The keys in which it differs from other rows."""
        return self.runs[0].settings

    def figure(self, name: str) -> Figure | None:
        """The figure `name`; None for what was not measured (no judge).

        One run: the bootstrap interval over its clips. Several: Student's interval of their mean. The standard deviation is
        that over seeds, over folds where there is one seed.
        """
        folds = [
            json.dumps([config_diff.at(run.config, key) for key in self.over if key != config_diff.SEED])
            for run in self.runs
        ]
        values = {(folds.index(fold), run.seed): run.figures[name] for fold, run in zip(folds, self.runs, strict=True)}
        if None in values.values():
            return None
        if len(values) == 1:
            low, high = self.runs[0].figures["intervals"][name]
            return Figure(self.runs[0].figures[name], (low, high), None)
        found = average(values)
        low, high = student(list(values.values()))
        sd = found.seed_sd if found.seed_sd is not None else found.fold_sd
        return Figure(found.mean, (max(low, 0.0), min(high, 1.0)), sd)


def rows_of(results: Sequence[Result], over: Sequence[str] = (config_diff.SEED,)) -> list[Row]:
    """The results by label, in their order; `over` as they were loaded with."""
    found: dict[str, list[Result]] = {}
    for result in results:
        found.setdefault(result.label, []).append(result)
    return [Row(label, runs, over) for label, runs in found.items()]


def columns(rows: Sequence[Row]) -> dict[str, str]:
    """The keys in which rows differ -> their headings."""
    return config_diff.short((key for row in rows for key in row.settings), words=2)


def load(folders: Iterable[Path], over: Iterable[str] = (config_diff.SEED,)) -> list[Result]:
    """Every evaluated run below `folders`, in the order of the table's rows, by seed within a row."""
    evaluated = [r for r in finished(folders) if r.metrics.get("sampled") or r.metrics.get("greedy")]
    return sorted(labelled(evaluated, over), key=_rank)


def _rank(result: Result) -> tuple[Any, ...]:
    """The order of a paper's table: SFT first, then the arms by name, then by settings, numbers as numbers."""
    values = [(0, v, "") if isinstance(v, int | float) else (1, 0, str(v)) for v in result.settings.values()]
    return (result.arm != "sft", result.arm, values, result.label, result.seed)


def labelled(results: Sequence[Result], over: Iterable[str] = (config_diff.SEED,)) -> list[Result]:
    """The results with the settings in which they differ, and with the labels of their rows.

    A label is the arm with the settings in which its runs differ. Runs of one label differ in their seeds only; where two
    have the same seed, what tells them apart (group, checkpoint, …) becomes a setting.
    """
    over = tuple(over)
    found = config_diff.varying([r.config for r in results], over)
    several_stages = {r.arm for r in results if len({o.metrics["stage"] for o in results if o.arm == r.arm}) > 1}
    for result, values in zip(results, found, strict=True):
        if result.arm in several_stages:
            values["stage"] = result.metrics["stage"]
    for key in (*config_diff.OF_A_SEED, "signature"):
        if not _twins(results, found, over):
            break
        _tell_apart(results, found, over, key)
    keys = sorted({key for values in found for key in values})
    rows = [replace(r, settings={k: v[k] for k in keys if k in v}) for r, v in zip(results, found, strict=True)]
    return [replace(r, label=_label(r, rows)) for r in rows]


def _place(result: Result, values: Mapping[str, Any], over: Sequence[str]) -> tuple[str, str]:
    """(row, which of its runs)."""
    members = json.dumps([config_diff.at(result.config, key) for key in over], default=str)
    return json.dumps([result.arm, values], sort_keys=True, default=str), members


def _twins(results: Sequence[Result], found: Sequence[dict[str, Any]], over: Sequence[str]) -> set[str]:
    """The rows of which two runs have the same seed."""
    places = [_place(r, v, over) for r, v in zip(results, found, strict=True)]
    return {row for row, member in places if places.count((row, member)) > 1}


def _tell_apart(results: Sequence[Result], found: Sequence[dict[str, Any]], over: Sequence[str], key: str) -> None:
    """Make `key` a setting of the rows with twins, where it differs between the twins themselves."""
    places = [_place(r, v, over) for r, v in zip(results, found, strict=True)]
    values = [config_diff.of_a_seed(r.config).get(key, r.metrics.get("signature")) for r in results]
    for row in _twins(results, found, over):
        members = [i for i, (other, _) in enumerate(places) if other == row]
        twins = defaultdict(set)
        for i in members:
            twins[places[i][1]].add(json.dumps(values[i], default=str))
        if any(len(options) > 1 for options in twins.values()):
            for i in members:
                found[i][key] = values[i]


def _label(result: Result, results: Sequence[Result]) -> str:
    """The arm, with the settings in which its runs differ."""
    others = [other.settings for other in results if other.arm == result.arm]
    names = config_diff.short((key for values in others for key in values), words=1)
    differing = [k for k in result.settings if len({json.dumps(o.get(k), default=str) for o in others}) > 1]
    listed = ", ".join(f"{names[key]}={config_diff.spoken(result.settings[key])}" for key in differing)
    return f"{result.arm} ({listed})" if listed else result.arm
