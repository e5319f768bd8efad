"""Two runs on the same clips: differences with intervals and p-values, Holm's correction, and means over folds and seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import lcm, sqrt
from statistics import mean, stdev

import numpy as np

from erv.evaluation.metrics.bootstrap import drawn, figures_of, interval, strata_of, totals
from erv.evaluation.metrics.scores import NAMES, Table


@dataclass(frozen=True)
class Difference:
    """`second - first` in one figure, as a fraction: its 95 % interval, the p-value of no difference, and its test."""

    value: float
    interval: list[float]
    p: float
    test: str


def compare(
    first: Table, second: Table, names: Sequence[str] = NAMES, resamples: int = 2000, seed: int = 0, stratified: bool = True
) -> dict[str, Difference]:  # fmt: skip
    """Every figure of two runs over the same clips; ValueError when the clips or their gold labels differ.

    Figures that are shares of answers are tested by `sign_flip` (exact McNemar where a clip has one answer), UAR by the paired
    bootstrap: both runs are measured on the same resampled clips. Intervals are percentiles of that bootstrap.
    """
    _refuse_other_clips(first, second)
    one, other = figures_of(first), figures_of(second)
    once = np.ones((1, len(first.ids)))
    value = {name: float((values - one(once)[name])[0]) for name, values in other(once).items()}
    parts = [(one(part), other(part)) for part in drawn(strata_of(first, stratified), resamples, seed)]
    draws = {name: np.concatenate([b[name] - a[name] for a, b in parts]) for name in names}
    found = {}
    for name in names:
        if name == "uar":
            p, test = bootstrap_p(draws[name]), "paired bootstrap"
        else:
            p = sign_flip(*_counts(first, name), *_counts(second, name))
            test = "exact McNemar" if _single(first) and _single(second) else "exact sign flips of clips"
        found[name] = Difference(value[name], interval(draws[name]), p, test)
    return found


def _single(table: Table) -> bool:
    return len(table.ids) == len(table.gold)


def _counts(table: Table, name: str) -> tuple[np.ndarray, np.ndarray]:
    """(answers that count for the figure, answers) of each clip `[K]`."""
    column = table.columns()[name]
    found = totals(table.clip, np.stack([column, np.ones(len(column))], axis=1)).astype(np.int64)
    return found[:, 0], found[:, 1]


def _refuse_other_clips(first: Table, second: Table) -> None:
    if first.ids != second.ids:
        only = sorted(set(first.ids) ^ set(second.ids))
        raise ValueError(
            f"runs are compared clip by clip, and {len(only)} clips are in one run only, first {only[0]}; evaluate both on the "
            "same split"
        )
    other = np.flatnonzero(first.strata != second.strata)
    if len(other):
        raise ValueError(f"the runs have different gold labels for {len(other)} clips, first {first.ids[other[0]]}")


def sign_flip(
    first_right: np.ndarray, first_all: np.ndarray, second_right: np.ndarray, second_all: np.ndarray
) -> float:  # fmt: skip
    """Exact two-sided p-value that two runs do equally well on every clip, from right answers and answers per clip `[K]`.

    Under the null the sign of a clip's difference in its share of right answers is a coin's: the p-value is the probability
    that the sum over clips is at least as far from 0 as it is. With one answer per clip this is the exact McNemar test.
    """
    scale = lcm(*np.unique(first_all).tolist(), *np.unique(second_all).tolist())
    steps = second_right * (scale // second_all) - first_right * (scale // first_all)
    seen = abs(int(steps.sum()))
    if seen == 0:
        return 1.0
    sizes, counts = np.unique(np.abs(steps[steps != 0]), return_counts=True)
    tail = np.ones(1)  # the distribution of how much of each size has a plus
    for size, count in zip(sizes.tolist(), counts.tolist(), strict=True):
        spread = np.zeros(size * count + 1)
        spread[::size] = _binomial(count)
        tail = np.convolve(tail, spread)
    most = len(tail) - 1  # a sum of s means that (most + s) / 2 of it has a plus
    return float(min(1.0, 2 * tail[(most + seen) // 2 :].sum()))


def _binomial(count: int) -> np.ndarray:
    """The probabilities of 0 … count heads of a coin."""
    from scipy.stats import binom

    return np.asarray(binom.pmf(np.arange(count + 1), count, 0.5))


def mcnemar(first: Sequence[bool], second: Sequence[bool]) -> float:
    """Exact two-sided p-value that two runs are right equally often on the same clips (one answer per clip)."""
    a, b = np.asarray(first, dtype=np.int64), np.asarray(second, dtype=np.int64)
    return sign_flip(a, np.ones_like(a), b, np.ones_like(b))


def bootstrap_p(draws: np.ndarray) -> float:
    """Two-sided p-value that a difference with bootstrap `draws` `[R]` is 0; never below 2 / (R + 1)."""
    beyond = min(int((draws <= 0).sum()), int((draws >= 0).sum()))
    return min(1.0, 2 * (beyond + 1) / (len(draws) + 1))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values, in the given order."""
    order = np.argsort(p_values, kind="stable")
    adjusted = np.maximum.accumulate([p_values[i] * (len(p_values) - rank) for rank, i in enumerate(order)])
    result = np.empty(len(p_values))
    result[order] = np.minimum(adjusted, 1.0)
    return [float(p) for p in result]


@dataclass(frozen=True)
class Average:
    """A figure over folds and seeds: the mean of the folds' means, and standard deviations over seeds and over folds.

    `seed_sd` is that of the seeds' means over folds, None with one seed or where a seed lacks a fold; `fold_sd` that of the
    folds' means over seeds, None with one fold. Folds share training clips, so `fold_sd` is no error of the mean.
    """

    mean: float
    seed_sd: float | None
    fold_sd: float | None
    runs: int


def average(values: dict[tuple[int, int], float]) -> Average:
    """The average of (fold, seed) -> figure; ValueError for an empty one."""
    if not values:
        raise ValueError("there are no runs to average")
    folds, seeds = sorted({fold for fold, _ in values}), sorted({seed for _, seed in values})
    by_fold = [mean(v for (f, _), v in values.items() if f == fold) for fold in folds]
    whole = len(values) == len(folds) * len(seeds)
    by_seed = [mean(v for (_, s), v in values.items() if s == seed) for seed in seeds] if whole else []
    return Average(
        mean(by_fold),
        stdev(by_seed) if len(by_seed) > 1 else None,
        stdev(by_fold) if len(folds) > 1 else None,
        len(values),
    )


def student(values: Sequence[float], level: float = 0.95) -> list[float]:
    """Student's interval of the mean of figures `[R]` of independent runs; ValueError for fewer than two."""
    if len(values) < 2:
        raise ValueError(
            f"an interval over runs needs two of them, got {len(values)}; one run has its bootstrap interval"
        )
    from scipy.stats import t

    half = float(t.ppf((1 + level) / 2, len(values) - 1)) * stdev(values) / sqrt(len(values))
    return [mean(values) - half, mean(values) + half]
