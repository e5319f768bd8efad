"""Group runs into the rows of the table: one row per setting, its runs differing in their seeds."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from erv.evaluation.metrics.significance import average, student
from erv.report import config_diff
from erv.report.runs import Result, finished_runs


@dataclass(frozen=True)
class Estimate:
    """A metric of a row, as a fraction."""

    value: float  # mean over runs
    interval: tuple[float, float]  # 95 %
    sd: float | None  # standard deviation, None for one run


@dataclass(frozen=True)
class Row:
    """Runs with the same settings."""

    label: str
    runs: list[Result]
    over: Sequence[str] = (
        config_diff.SEED,
    )  # keys in which the runs differ, and which are averaged over: seeds, and folds

    @property
    def arm(self) -> str:
        """The name that its runs were given."""
        return self.runs[0].arm

    @property
    def settings(self) -> Mapping[str, Any]:
        """The keys in which it differs from other rows."""
        return self.runs[0].settings

    def estimate(self, metric: str) -> Estimate | None:
        """Average a metric over the runs; None where a run did not measure it (no judge, or made before there was the metric).

        One run: the bootstrap interval over its clips. Several: Student's interval of their mean. The standard deviation is
        that over seeds, over folds where there is one seed.
        """
        folds = [
            json.dumps([config_diff.at(run.config, key) for key in self.over if key != config_diff.SEED])
            for run in self.runs
        ]
        values = {
            (folds.index(fold), run.seed): run.scores.get(metric) for fold, run in zip(folds, self.runs, strict=True)
        }
        measured = {key: value for key, value in values.items() if value is not None}
        if len(measured) < len(values):
            return None
        if len(measured) == 1:
            scores = self.runs[0].scores
            low, high = scores["intervals"][metric]
            return Estimate(scores[metric], (low, high), None)
        mean = average(measured)
        low, high = student(list(measured.values()))
        sd = mean.seed_sd if mean.seed_sd is not None else mean.fold_sd
        return Estimate(mean.mean, (max(low, 0.0), min(high, 1.0)), sd)


def rows_of(results: Sequence[Result], over: Sequence[str] = (config_diff.SEED,)) -> list[Row]:
    """Group the results by label, in their order; `over` as they were loaded with."""
    by_label: dict[str, list[Result]] = {}
    for result in results:
        by_label.setdefault(result.label, []).append(result)
    return [Row(label, runs, over) for label, runs in by_label.items()]


def columns(rows: Sequence[Row]) -> dict[str, str]:
    """The keys in which rows differ -> their headings."""
    return config_diff.short((key for row in rows for key in row.settings), words=2)


def load(folders: Iterable[Path], over: Iterable[str] = (config_diff.SEED,)) -> list[Result]:
    """Load every evaluated run below `folders`, in the order of the table's rows, by seed within a row."""
    evaluated = [r for r in finished_runs(folders) if r.metrics.get("sampled") or r.metrics.get("greedy")]
    return sorted(labelled(evaluated, over), key=_sort_key)


def _sort_key(result: Result) -> tuple[Any, ...]:
    """The order of a paper's table: SFT first, then the arms by name, then by settings, numbers as numbers."""
    values = [(0, v, "") if isinstance(v, int | float) else (1, 0, str(v)) for v in result.settings.values()]
    return (result.arm != "sft", result.arm, values, result.label, result.seed)


def labelled(results: Sequence[Result], over: Iterable[str] = (config_diff.SEED,)) -> list[Result]:
    """Add to the results the settings in which they differ, and the labels of their rows.

    A label is the arm with the settings in which its runs differ. Runs of one label differ in their seeds only; where two
    have the same seed, what distinguishes them (group, checkpoint, …) becomes a setting.
    """
    over = tuple(over)
    settings = config_diff.varying([r.config for r in results], over)
    stages: dict[str, set[str]] = defaultdict(set)
    for result in results:
        stages[result.arm].add(result.metrics["stage"])
    for result, values in zip(results, settings, strict=True):
        if len(stages[result.arm]) > 1:
            values["stage"] = result.metrics["stage"]
    for key in (*config_diff.OF_A_SEED, "signature"):
        _distinguish_same_seeds(results, settings, over, key)
    keys = sorted({key for values in settings for key in values})
    rows = [replace(r, settings={k: v[k] for k in keys if k in v}) for r, v in zip(results, settings, strict=True)]
    return [replace(r, label=_label(r, rows)) for r in rows]


def _distinguish_same_seeds(
    results: Sequence[Result],
    settings: Sequence[dict[str, Any]],
    over: Sequence[str],
    key: str,
) -> None:
    """Make `key` a setting of the rows in which two runs have the same seed, where it differs between just those runs."""
    row_of = [
        json.dumps([result.arm, values], sort_keys=True, default=str)
        for result, values in zip(results, settings, strict=True)
    ]
    seed_of = [json.dumps([config_diff.at(result.config, k) for k in over], default=str) for result in results]
    counts = Counter(zip(row_of, seed_of, strict=True))
    values_of = [config_diff.of_a_seed(r.config).get(key, r.metrics.get("signature")) for r in results]
    for row in {row for (row, _), count in counts.items() if count > 1}:
        members = [i for i, other in enumerate(row_of) if other == row]
        values_by_seed: dict[str, set[str]] = defaultdict(set)
        for i in members:
            values_by_seed[seed_of[i]].add(json.dumps(values_of[i], default=str))
        if any(len(values) > 1 for values in values_by_seed.values()):
            for i in members:
                settings[i][key] = values_of[i]


def _label(result: Result, results: Sequence[Result]) -> str:
    """The arm, with the settings in which its runs differ."""
    of_arm = [other.settings for other in results if other.arm == result.arm]
    names = config_diff.short((key for values in of_arm for key in values), words=1)
    differing = [k for k in result.settings if len({json.dumps(o.get(k), default=str) for o in of_arm}) > 1]
    listed = ", ".join(f"{names[key]}={config_diff.as_text(result.settings[key])}" for key in differing)
    return f"{result.arm} ({listed})" if listed else result.arm
