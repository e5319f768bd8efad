"""The table of trained verifiers: one line per setting, means over seeds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import groupby
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from erv.report.rows import labelled
from erv.report.runs import Result, finished
from erv.report.table import grid

_HEAD = ["verifier", "seeds", "sentences", "macro F1", "micro F1", "weakest class", "mAP", "emotions a sentence", "ECE",
         "ECE calibrated", "tau", "macro F1 at tau", "withheld"]  # fmt: skip


def load_verifiers(folders: Iterable[Path]) -> list[Result]:
    """Every trained verifier below `folders`, by label and seed."""
    trained = [r for r in finished(folders) if r.metrics.get("stage") == "verifier" and "chosen" in r.metrics]
    return sorted(labelled(trained), key=lambda r: (r.label, r.seed))


def as_markdown(results: list[Result]) -> str:
    """The table; figures in percent but for counts and tau."""
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
    def of(split: str, name: str) -> str:
        values = [m[split][name] for m in metrics if split in m]
        return _percent(values)

    weakest = _percent([min(c["f1"] for c in m["classes"].values()) for m in metrics])
    return [
        f"{mean(m['sentences']['rows'] for m in metrics):.0f}", of("heldout", "macro_f1"), of("heldout", "micro_f1"), weakest,
        of("heldout", "map"), f"{mean(m['heldout']['labels_per_sentence'] for m in metrics):.2f}", of("heldout", "ece"),
        of("chosen", "ece_calibrated"), f"{mean(m['chosen']['threshold'] for m in metrics):.2f}", of("chosen", "macro_f1"),
        of("withheld", "macro_f1"),
    ]  # fmt: skip


def _percent(values: list[float]) -> str:
    if not values:
        return "-"
    return f"{100 * mean(values):.1f}" + (f" ± {100 * stdev(values):.1f}" if len(values) > 1 else "")
