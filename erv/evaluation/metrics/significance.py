"""Two runs on the same clips: differences with intervals and p-values, Holm's correction, and means over folds and seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import lcm, sqrt
from statistics import mean, stdev

import numpy as np

from erv.evaluation.metrics.answer_table import AnswerTable
from erv.evaluation.metrics.bootstrap import interval, strata_of, weight_chunks
from erv.evaluation.metrics.definitions import METRICS, AnswerShare, answer_metrics
from erv.evaluation.metrics.scores import sum_by_clip, weighted_scores


@dataclass(frozen=True)
class Difference:
    """`second - first` in one metric, as a fraction: its 95 % interval, the p-value of no difference, and the test's name."""

    value: float
    interval: list[float]
    p: float
    test: str


def compare(
    first: AnswerTable,
    second: AnswerTable,
    names: Sequence[str] | None = None,
    resamples: int = 2000,
    seed: int = 0,
    stratified: bool = True,
) -> dict[str, Difference]:
    """Compare two runs over the same clips; ValueError when the clips or their gold labels differ.

    Metrics that are shares of answers are tested by `sign_flip` (exact McNemar where a clip has one answer), UAR by the paired
    bootstrap: both runs are measured on the same resampled clips. Intervals are percentiles of that bootstrap.

    Args:
        names: the answer metrics to compare, None for all of them.
    """
    _check_same_clips(first, second)
    names = [metric.name for metric in answer_metrics()] if names is None else names
    first_scores, second_scores = weighted_scores(first), weighted_scores(second)
    once = np.ones((1, len(first.clip_ids)))
    value = {name: float((values - first_scores(once)[name])[0]) for name, values in second_scores(once).items()}
    chunks = [
        (first_scores(weights), second_scores(weights))
        for weights in weight_chunks(strata_of(first, stratified), resamples, seed)
    ]
    draws = {name: np.concatenate([b[name] - a[name] for a, b in chunks]) for name in names}
    one_answer_each = all(len(table.clip_ids) == len(table.gold) for table in (first, second))
    differences = {}
    for name in names:
        compute = METRICS[name].compute
        if isinstance(compute, AnswerShare):
            p = sign_flip(*_clip_counts(first, compute), *_clip_counts(second, compute))
            test = "exact McNemar" if one_answer_each else "exact sign flips of clips"
        else:
            p, test = bootstrap_p(draws[name]), "paired bootstrap"
        differences[name] = Difference(value[name], interval(draws[name]), p, test)
    return differences


def _clip_counts(table: AnswerTable, share: AnswerShare) -> tuple[np.ndarray, np.ndarray]:
    """(answers that count for the metric, answers) of each clip `[K]`."""
    column = share.counts(table)
    sums = sum_by_clip(table.clip, np.stack([column, np.ones(len(column))], axis=1)).astype(np.int64)
    return sums[:, 0], sums[:, 1]


def _check_same_clips(first: AnswerTable, second: AnswerTable) -> None:
    if first.clip_ids != second.clip_ids:
        unshared = sorted(set(first.clip_ids) ^ set(second.clip_ids))
        raise ValueError(
            f"runs are compared clip by clip, and {len(unshared)} clips are in one run only, first {unshared[0]}; evaluate both "
            "on the same split"
        )
    relabelled = np.flatnonzero(first.gold_of_clips != second.gold_of_clips)
    if len(relabelled):
        raise ValueError(
            f"the runs have different gold labels for {len(relabelled)} clips, first {first.clip_ids[relabelled[0]]}"
        )


def sign_flip(
    first_right: np.ndarray,
    first_all: np.ndarray,
    second_right: np.ndarray,
    second_all: np.ndarray,
) -> float:
    """Exact two-sided p-value that two runs do equally well on every clip, from right answers and answers per clip `[K]`.

    Under the null the sign of a clip's difference in its share of right answers is a coin's: the p-value is the probability
    that the sum over clips is at least as far from 0 as it is. With one answer per clip this is the exact McNemar test.
    """
    from scipy.stats import binom

    # in units of 1 / scale, so that differences of shares are whole numbers and their distribution an array
    scale = lcm(*np.unique(first_all).tolist(), *np.unique(second_all).tolist())
    differences = second_right * (scale // second_all) - first_right * (scale // first_all)
    observed = abs(int(differences.sum()))
    if observed == 0:
        return 1.0
    sizes, counts = np.unique(np.abs(differences[differences != 0]), return_counts=True)
    positive = np.ones(1)  # probability of each sum of the differences whose sign is positive
    for size, count in zip(sizes.tolist(), counts.tolist(), strict=True):
        of_this_size = np.zeros(size * count + 1)
        of_this_size[::size] = binom.pmf(np.arange(count + 1), count, 0.5)
        positive = np.convolve(positive, of_this_size)
    total = len(positive) - 1  # a signed sum of s means that the positive ones sum to (total + s) / 2
    return float(min(1.0, 2 * positive[(total + observed) // 2 :].sum()))


def bootstrap_p(draws: np.ndarray) -> float:
    """Two-sided p-value that a difference with bootstrap `draws` `[R]` is 0; never below 2 / (R + 1)."""
    tail = min(int((draws <= 0).sum()), int((draws >= 0).sum()))
    return min(1.0, 2 * (tail + 1) / (len(draws) + 1))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values, in the given order."""
    order = np.argsort(p_values, kind="stable")
    adjusted = np.maximum.accumulate([p_values[i] * (len(p_values) - rank) for rank, i in enumerate(order)])
    result = np.empty(len(p_values))
    result[order] = np.minimum(adjusted, 1.0)
    return [float(p) for p in result]


@dataclass(frozen=True)
class Average:
    """A metric over folds and seeds: the mean of the folds' means, and standard deviations over seeds and over folds.

    `seed_sd` is that of the seeds' means over folds, None with one seed or where a seed lacks a fold; `fold_sd` that of the
    folds' means over seeds, None with one fold. Folds share training clips, so `fold_sd` is no error of the mean.
    """

    mean: float
    seed_sd: float | None
    fold_sd: float | None
    runs: int


def average(values: dict[tuple[int, int], float]) -> Average:
    """The average of (fold, seed) -> score; ValueError for an empty one."""
    if not values:
        raise ValueError("there are no runs to average")
    folds, seeds = sorted({fold for fold, _ in values}), sorted({seed for _, seed in values})
    by_fold = [mean(v for (f, _), v in values.items() if f == fold) for fold in folds]
    complete = len(values) == len(folds) * len(seeds)
    by_seed = [mean(v for (_, s), v in values.items() if s == seed) for seed in seeds] if complete else []
    return Average(
        mean(by_fold),
        stdev(by_seed) if len(by_seed) > 1 else None,
        stdev(by_fold) if len(folds) > 1 else None,
        len(values),
    )


def student(values: Sequence[float], level: float = 0.95) -> list[float]:
    """Student's interval of the mean of scores `[R]` of independent runs; ValueError for fewer than two."""
    if len(values) < 2:
        raise ValueError(
            f"an interval over runs needs two of them, got {len(values)}; one run has its bootstrap interval"
        )
    from scipy.stats import t

    half = float(t.ppf((1 + level) / 2, len(values) - 1)) * stdev(values) / sqrt(len(values))
    return [mean(values) - half, mean(values) + half]
