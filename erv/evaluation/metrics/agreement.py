"""Agreement of judges with each other and with people: percent agreement, Cohen's kappa, Krippendorff's alpha.

Ratings are class indices, UNKNOWN where a rater gave none. All are for nominal labels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm

from erv.evaluation.metrics.answer_table import UNKNOWN
from erv.evaluation.metrics.bootstrap import interval, weight_chunks

_MAX_LABELS = 64  # more than any taxonomy has


@dataclass(frozen=True)
class Estimate:
    """An agreement; None where it is not defined: nothing to compare, or one label only."""

    value: float | None
    interval: list[float] | None  # 95 %
    n: int  # units, such as explanations, that it is over


def percent_agreement(first: np.ndarray, second: np.ndarray) -> Estimate:
    """Share of units with equal ratings, among those that both rated, with Wilson's interval."""
    both = (first != UNKNOWN) & (second != UNKNOWN)
    n = int(both.sum())
    equal = int((first == second)[both].sum())
    return Estimate(equal / n, wilson(equal, n), n) if n else Estimate(None, None, 0)


def wilson(successes: int, n: int, level: float = 0.95) -> list[float]:
    """Wilson's interval of a share: 26 of 28 gives 77 to 98 %. Unlike the normal one it never leaves [0, 1]."""
    z = float(norm.ppf((1 + level) / 2))
    share = successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z * np.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return [float(max(centre - half, 0.0)), float(min(centre + half, 1.0))]


def cohen_kappa(first: np.ndarray, second: np.ndarray, resamples: int = 2000, seed: int = 0) -> Estimate:
    """Cohen's kappa over the units that both rated; interval by bootstrap over units."""
    both = (first != UNKNOWN) & (second != UNKNOWN)
    a, b = (_one_hot(ratings[both]) for ratings in (first, second))  # [n, L]

    def kappa(weights: np.ndarray) -> np.ndarray:
        total = weights.sum(1)
        agreed = weights @ (a * b).sum(1) / total
        chance = ((weights @ a) * (weights @ b)).sum(1) / total**2
        return _ratio(agreed - chance, 1 - chance)

    return _estimate(kappa, len(a), resamples, seed)


def krippendorff_alpha(ratings: np.ndarray, resamples: int = 2000, seed: int = 0) -> Estimate:
    """Krippendorff's alpha of `ratings` `[raters, units]`; a unit counts when two rated it. Interval by bootstrap over units.

    1 - observed / expected disagreement, from how often each unit was given each label.
    """
    pairable = ratings[:, (ratings != UNKNOWN).sum(0) > 1]
    counts = sum(_one_hot(row) for row in pairable)  # [n, L]
    raters = np.sum(counts, axis=1)
    observed = (raters**2 - np.sum(np.square(counts), axis=1)) / np.maximum(
        raters - 1, 1
    )  # disagreement of each unit [n]

    def alpha(weights: np.ndarray) -> np.ndarray:
        label_counts = weights @ counts
        total = label_counts.sum(1)
        expected = (total**2 - (label_counts**2).sum(1)) / np.maximum(total - 1, 1)
        return 1 - _ratio(weights @ observed, expected)

    return _estimate(alpha, pairable.shape[1], resamples, seed)


def _one_hot(ratings: np.ndarray) -> np.ndarray:
    """`[n, L]`, a row of zeros where there is no rating."""
    return (ratings[:, None] == np.arange(_MAX_LABELS)).astype(np.float64)


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """The quotient, NaN where the denominator is 0 up to rounding."""
    return np.where(np.abs(denominator) > 1e-12, numerator / np.where(denominator == 0, 1, denominator), np.nan)


def _estimate(statistic: Callable[[np.ndarray], np.ndarray], n: int, resamples: int, seed: int) -> Estimate:
    """A statistic of weights `[R, n]` with its interval; resamples in which it is not defined are left out."""
    value = float(statistic(np.ones((1, n)))[0]) if n else np.nan
    if np.isnan(value):
        return Estimate(None, None, n)
    strata = np.zeros(n, dtype=np.int64)
    draws = np.concatenate([statistic(weights) for weights in weight_chunks(strata, resamples, seed)])
    return Estimate(value, interval(draws[~np.isnan(draws)]), n)
