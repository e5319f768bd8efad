"""The table for other programs: JSON lines and CSV, metrics as fractions."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from typing import Any

from erv.evaluation.metrics.definitions import shown_in
from erv.report.compare import Compared, Comparison
from erv.report.rows import Row, columns
from erv.report.runs import Result
from erv.utils.sanitize import cell


def as_json(rows: Sequence[Row], comparisons: Sequence[Comparison]) -> str:
    """One object per row and line: settings, metrics as fractions, differences from the baselines, and every run."""
    return "".join(json.dumps(_row(row, comparisons), ensure_ascii=False) + "\n" for row in rows)


def _row(row: Row, comparisons: Sequence[Comparison]) -> dict[str, Any]:
    estimates = {metric.name: row.estimate(metric.name) for metric in shown_in("results")}
    return {
        "arm": row.arm,
        "label": row.label,
        "settings": dict(row.settings),
        "seeds": [run.seed for run in row.runs],
        **{name: estimate and estimate.value for name, estimate in estimates.items()},
        "sd": {name: estimate and estimate.sd for name, estimate in estimates.items()},
        "intervals": {name: estimate and list(estimate.interval) for name, estimate in estimates.items()},
        "against": {
            comparison.baseline.label: _differences(compared)
            for comparison in comparisons
            for compared in comparison.rows
            if compared.row is row
        },
        "runs": [_run(run) for run in row.runs],
    }


def _differences(compared: Compared) -> dict[str, Any]:
    return {"clips": compared.clips} | {
        name: {"difference": d.value, "interval": d.interval, "p": d.p, "p_holm": compared.holm[name], "test": d.test}
        for name, d in compared.differences.items()
    }


def _run(run: Result) -> dict[str, Any]:
    greedy = run.metrics.get("greedy")
    names = [metric.name for metric in shown_in("results")]
    return {
        "folder": str(run.folder),
        "seed": run.seed,
        "signature": run.metrics["signature"],
        "clips": run.metrics["clips"],
        "judge": run.judge,
        **{name: run.scores.get(name) for name in names},
        "intervals": {name: run.scores["intervals"].get(name) for name in names},
        **{metric.name: run.scores.get(metric.name) for metric in shown_in("run_json")},
        "verdict_status": run.scores["verdict_status"],
        "greedy": {name: greedy.get(name) for name in names} if greedy else None,
    }


def as_csv(rows: Sequence[Row], comparisons: Sequence[Comparison]) -> str:
    """One line per row; metrics as fractions; differences are those from the first baseline."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    keys = columns(rows)
    names = [metric.name for metric in shown_in("results")]
    suffixes = ("", "_sd", "_low", "_high", "_difference", "_difference_low", "_difference_high", "_p", "_p_holm")
    by_label = {c.row.label: c for c in comparisons[0].rows} if comparisons else {}
    writer.writerow(
        ["arm", "label", *keys.values(), "seeds", "baseline", *(name + suffix for name in names for suffix in suffixes)]
    )
    for row in rows:
        line = [*map(cell, (row.arm, row.label, *(row.settings.get(key) for key in keys))), len(row.runs)]
        line.append(cell(comparisons[0].baseline.label) if row.label in by_label else None)
        writer.writerow(line + [value for name in names for value in _values(row, by_label.get(row.label), name)])
    return file.getvalue()


def _values(row: Row, compared: Compared | None, name: str) -> list[float | None]:
    """The nine values of a metric, in the order of the suffixes."""
    estimate, difference = row.estimate(name), compared.differences.get(name) if compared else None
    values: list[float | None] = [None] * 9
    if estimate is not None:
        values[:4] = [estimate.value, estimate.sd, *estimate.interval]
    if compared and difference:
        values[4:] = [difference.value, *difference.interval, difference.p, compared.holm[name]]
    return values
