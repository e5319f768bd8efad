"""The table of trained verifiers: one line per setting, means over seeds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import groupby
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from erv.report.rows import labelled
from erv.report.runs import Result, finished_runs
from erv.report.table import grid

_HEAD = [
    "verifier",
    "seeds",
    "sentences",
    "macro F1",
    "micro F1",
    "weakest class",
    "mAP",
    "emotions a sentence",
    "ECE",
    "ECE calibrated",
    "tau",
    "macro F1 at tau",
    "withheld",
]


def load_verifiers(folders: Iterable[Path]) -> list[Result]:
    """Load every trained verifier below `folders`, sorted by label and seed."""
    trained = [r for r in finished_runs(folders) if r.metrics.get("stage") == "verifier" and "chosen" in r.metrics]
    return sorted(labelled(trained), key=lambda r: (r.label, r.seed))


def as_markdown(results: list[Result]) -> str:
    """The table as Markdown; percent but for counts and tau."""
    rows = []
    for label, runs in groupby(results, key=lambda r: r.label):
        metrics = [run.metrics for run in runs]
        rows.append([label, str(len(metrics)), *_cells(metrics)])
    return grid(_HEAD, rows) + (
        "\nPercent but for counts and tau, mean ± standard deviation over seeds, on held-out sentences with the emotions that "
        "the reward gives (above .1, at most two). 'ECE calibrated' and 'macro F1 at tau' are on audit sentences, which chose "
        "neither temperature nor tau; 'withheld' is macro F1 on phrases that no training sentence holds.\n"
    )


def _cells(metrics: list[Mapping[str, Any]]) -> list[str]:
    """The cells of a row, from "sentences" on."""

    def percent(split: str, name: str) -> str:
        return _percent([m[split][name] for m in metrics if split in m])

    return [
        f"{mean(m['sentences']['rows'] for m in metrics):.0f}",
        percent("heldout", "macro_f1"),
        percent("heldout", "micro_f1"),
        _percent([min(c["f1"] for c in m["classes"].values()) for m in metrics]),
        percent("heldout", "map"),
        f"{mean(m['heldout']['labels_per_sentence'] for m in metrics):.2f}",
        percent("heldout", "ece"),
        percent("chosen", "ece_calibrated"),
        f"{mean(m['chosen']['threshold'] for m in metrics):.2f}",
        percent("chosen", "macro_f1"),
        percent("withheld", "macro_f1"),
    ]


def _percent(values: list[float]) -> str:
    """Mean ± standard deviation over seeds."""
    if not values:
        return "-"
    return f"{100 * mean(values):.1f}" + (f" ± {100 * stdev(values):.1f}" if len(values) > 1 else "")
