"""The table for other programs: JSON lines and CSV, figures as fractions."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from typing import Any

from erv.report.compare import Compared, Comparison
from erv.report.rows import Row, columns
from erv.report.runs import FIGURES, Result
from erv.utils.sanitize import cell


def as_json(rows: Sequence[Row], comparisons: Sequence[Comparison]) -> str:
    """One object per row and line: settings, figures as fractions, differences from the baselines, and every run."""
    return "".join(json.dumps(_object(row, comparisons), ensure_ascii=False) + "\n" for row in rows)


def _object(row: Row, comparisons: Sequence[Comparison]) -> dict[str, Any]:
    figures = {name: row.figure(name) for name in FIGURES}
    return {
        "arm": row.arm, "label": row.label, "settings": dict(row.settings), "seeds": [run.seed for run in row.runs],
        **{name: figure and figure.value for name, figure in figures.items()},
        "sd": {name: figure and figure.sd for name, figure in figures.items()},
        "intervals": {name: figure and list(figure.interval) for name, figure in figures.items()},
        "against": {c.baseline.label: _differences(found) for c in comparisons for found in c.rows if found.row is row},
        "runs": [_run(run) for run in row.runs],
    }  # fmt: skip


def _differences(compared: Compared) -> dict[str, Any]:
    found = compared.differences.items()
    return {"clips": compared.clips} | {
        name: {"difference": d.value, "interval": d.interval, "p": d.p, "p_holm": compared.holm[name], "test": d.test}
        for name, d in found
    }


def _run(run: Result) -> dict[str, Any]:
    greedy = run.metrics.get("greedy")
    return {
        "folder": str(run.folder), "seed": run.seed, "signature": run.metrics["signature"], "clips": run.metrics["clips"],
        "judge": run.judge, **{name: run.figures[name] for name in FIGURES},
        "intervals": {name: run.figures["intervals"][name] for name in FIGURES},
        "right_answer_wrong_reason": run.figures["right_answer_wrong_reason"], "unknown_rate": run.figures["unknown_rate"],
        "format_rate": run.figures["format_rate"], "verdict_status": run.figures["verdict_status"],
        "greedy": {name: greedy[name] for name in FIGURES} if greedy else None,
    }  # fmt: skip


def as_csv(rows: Sequence[Row], comparisons: Sequence[Comparison]) -> str:
    """One line per row; figures as fractions; differences are those from the first baseline."""
    target = io.StringIO()
    writer = csv.writer(target, lineterminator="\n")
    keys = columns(rows)
    found = {c.row.label: c for c in comparisons[0].rows} if comparisons else {}
    parts = ("", "_sd", "_low", "_high", "_difference", "_difference_low", "_difference_high", "_p", "_p_holm")
    writer.writerow(
        ["arm", "label", *keys.values(), "seeds", "baseline", *(n + part for n in FIGURES for part in parts)]
    )
    for row in rows:
        line = [*map(cell, (row.arm, row.label, *(row.settings.get(key) for key in keys))), len(row.runs)]
        line.append(cell(comparisons[0].baseline.label) if row.label in found else None)
        writer.writerow(line + [value for name in FIGURES for value in _values(row, found.get(row.label), name)])
    return target.getvalue()


def _values(row: Row, compared: Compared | None, name: str) -> list[float | None]:
    figure = row.figure(name)
    own: list[float | None] = [None] * 4
    if figure is not None:
        own = [figure.value, figure.sd, *figure.interval]
    d = compared.differences.get(name) if compared else None
    return own + ([d.value, *d.interval, d.p, compared.holm[name]] if compared and d else [None] * 5)
