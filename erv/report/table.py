"""The tables: arms with their figures, and the differences between arms on the same clips."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from math import sqrt
from statistics import mean, stdev

import numpy as np
from scipy.stats import t as student

from erv.metrics.intervals import paired_difference
from erv.report.runs import FIGURES, Result

Interval = Sequence[float]
STYLE = {  # heading -> decoding and figure of metrics.json
    "R_E verifier": ("sampled", "verifier_reward"), "R_E judge": ("sampled", "judge_reward"),
    "sentences": ("sampled", "sentences_mean"), "tokens": ("sampled", "tokens_mean"),
    "neutral": ("sampled", "neutral_share"), "well formed": ("sampled", "format_rate"),
    "distinct": ("sampled", "distinct_rationales"), "distinct, greedy": ("greedy", "distinct_rationales"),
    "FCR, greedy": ("greedy", "fcr"),
}  # fmt: skip


@dataclass(frozen=True)
class Arm:
    """The runs of one arm with the same settings, one per seed."""

    label: str
    runs: list[Result]

    def figure(self, name: str) -> tuple[float, Interval, float | None] | None:
        """(mean, 95 % interval, standard deviation over seeds); None for what was not measured (no judge).

        One seed: the bootstrap interval over its clips. Several: Student's interval of the mean over seeds, which have
        clips of their own, so it holds the sampling of clips too; cut to [0, 1].
        """
        values = [run.figures[name] for run in self.runs]
        if None in values:
            return None
        if len(values) == 1:
            return values[0], self.runs[0].figures["intervals"][name], None
        centre, spread = mean(values), stdev(values)
        half = float(student.ppf(0.975, len(values) - 1)) * spread / sqrt(len(values))
        return centre, (max(centre - half, 0.0), min(centre + half, 1.0)), spread


@dataclass(frozen=True)
class Difference:
    """An arm minus a baseline in one figure, on the clips of the seeds that both have; `per_seed` in order of seed."""

    value: float
    interval: Interval
    per_seed: list[float]


def arms(results: Sequence[Result]) -> list[Arm]:
    """The results by label."""
    return [Arm(label, list(runs)) for label, runs in groupby(results, key=lambda r: r.label)]


def difference(arm: Arm, baseline: Arm, figure: str) -> Difference | None:
    """`arm` minus `baseline`, paired clip by clip; None when they share no seed with the same clips."""
    first: list[float] = []
    second: list[float] = []
    per_seed = []
    for run in arm.runs:
        for other in baseline.runs:
            a, b = other.per_clip(figure), run.per_clip(figure)
            if other.seed == run.seed and a and a.keys() == b.keys():
                first += [a[clip] for clip in sorted(a)]
                second += [b[clip] for clip in sorted(a)]
                per_seed.append(mean(b.values()) - mean(a.values()))
    if not per_seed:
        return None
    value, bounds = paired_difference(np.array(first), np.array(second))
    return Difference(value, bounds, per_seed)


def _percent(value: float, bounds: Interval, spread: float | None = None, sign: str = "") -> str:
    sd = "" if spread is None else f" ± {100 * spread:.1f}"
    return f"{100 * value:{sign}.1f}{sd} [{100 * bounds[0]:{sign}.1f}, {100 * bounds[1]:{sign}.1f}]"


def _style(arm: Arm) -> list[str]:
    """How an arm's rationales are written; a collapse and a gamed verifier show here before they show in FCR."""
    cells = []
    for place, name in STYLE.values():
        values = [run.metrics[place].get(name) if run.metrics.get(place) else None for run in arm.runs]
        known = [value for value in values if value is not None]
        shown = mean(known) if known else None
        cells.append("-" if shown is None else f"{shown:.1f}" if name.endswith("_mean") else _plain(shown))
    return cells


def _per_class(arm: Arm, classes: Sequence[str]) -> list[str]:
    """EEA of each class in percent, mean over seeds: what the mean over clips hides."""
    return [_plain(mean(run.figures["per_class"][label]["eea"] for run in arm.runs)) for label in classes]


def _plain(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def as_markdown(results: Sequence[Result], baselines: Sequence[str]) -> str:
    """Both tables as Markdown, in percent."""
    every = arms(results)
    several = any(len(arm.runs) > 1 for arm in every)
    head = ["arm", "seeds", *(name.upper() for name in FIGURES), *(["FCR per seed"] if several else [])]
    rows = []
    for arm in every:
        cells = [arm.label, str(len(arm.runs)), *(_percent(*f) if (f := arm.figure(name)) else "-" for name in FIGURES)]
        rows.append(cells + ([" ".join(_plain(r.figures["fcr"]) for r in arm.runs)] if several else []))
    text = grid(head, rows) + "\n" + _note(every, several)
    text += "\n" + grid(["arm", *STYLE], [[arm.label, *_style(arm)] for arm in every])
    text += "Means over seeds; R_E by the verifier and by the judge, sentence by sentence; shares in percent.\n"
    if every[0].figure("eea"):
        classes = list(every[0].runs[0].figures["per_class"])
        text += "\n" + grid(["EEA of", *classes], [[arm.label, *_per_class(arm, classes)] for arm in every])
    compared = list(_differences(every, baselines, several))
    if compared:
        names = ["difference", "WAR", "FCR", *(["WAR per seed", "FCR per seed"] if several else [])]
        text += (
            "\n"
            + grid(names, compared)
            + "\nDifferences are paired: the same clips, both arms; percentile bootstrap over clips.\n"
        )
    return text


def pairs(every: Sequence[Arm], baselines: Sequence[str]) -> Iterator[tuple[Arm, Arm]]:
    """(arm, baseline) for every comparison to show, none of them twice."""
    for place, name in enumerate(baselines):
        for baseline in (arm for arm in every if arm.runs[0].arm == name):
            for arm in every:
                if arm is not baseline and arm.runs[0].arm not in baselines[place:]:
                    yield arm, baseline


def _differences(every: Sequence[Arm], baselines: Sequence[str], several: bool) -> Iterator[list[str]]:
    for arm, baseline in pairs(every, baselines):
        war, fcr = (difference(arm, baseline, figure) for figure in ("war", "fcr"))
        if war is not None:
            cells = [f"{arm.label} - {baseline.label}"]
            cells += [_percent(d.value, d.interval, sign="+") if d else "-" for d in (war, fcr)]
            yield cells + ([_per_seed(d) for d in (war, fcr)] if several else [])


def _per_seed(difference: Difference | None) -> str:
    return " ".join(f"{100 * d:+.1f}" for d in difference.per_seed) if difference else "-"


def _note(every: list[Arm], several: bool) -> str:
    run = every[0].runs[0]
    plan = run.metrics["evaluation"]
    spread = "Mean ± standard deviation over seeds; brackets: 95 % interval" if several else "Brackets: 95 % interval"
    how = (
        "Student over seeds where there are several, bootstrap over clips otherwise"
        if several
        else "bootstrap over clips"
    )
    return (
        f"Percent. {run.metrics['clips']} {plan['split']} clips per seed, {plan['samples']} answers each at T = "
        f"{plan['temperature']}; explanations read by judge '{run.metrics['judge'] or 'none'}'. {spread} ({how}).\n"
    )


def grid(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table with columns of one width."""
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    lines = [[cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in [head, *rows]]
    lines.insert(1, ["-" * width for width in widths])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def as_csv(results: Sequence[Result]) -> str:
    """One line per run: arm, label, seed, and each figure with its interval, as fractions."""
    target = io.StringIO()
    writer = csv.writer(target, lineterminator="\n")
    bounds = [f"{name}_{end}" for name in FIGURES for end in ("low", "high")]
    writer.writerow(["arm", "label", "seed", "signature", "clips", *FIGURES, *bounds])
    for result in results:
        row = result.row()
        ends = [end for name in FIGURES for end in row["intervals"][name] or ("", "")]
        writer.writerow([row[k] for k in ("arm", "label", "seed", "signature", "clips", *FIGURES)] + ends)
    return target.getvalue()
