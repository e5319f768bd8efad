"""Bootstrap intervals over clips, and paired comparison of two runs.

The unit of resampling is the clip: several samples of one clip are drawn together, since they are not independent.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.stats import binomtest

from erv.metrics.scores import UNKNOWN


def _weights(clips: int, resamples: int, seed: int) -> np.ndarray:
    """How often each clip is drawn `[R, K]`."""
    return np.random.default_rng(seed).multinomial(clips, np.full(clips, 1 / clips), size=resamples).astype(np.float64)


def _sums(clip: np.ndarray, clips: int, values: np.ndarray) -> np.ndarray:
    """Sum of `values` `[N, M]` within each clip `[K, M]`."""
    table = np.zeros((clips, values.shape[1]))
    np.add.at(table, clip, values)
    return table


def resampled(
    gold: np.ndarray, answer: np.ndarray, judged: np.ndarray, clip: np.ndarray, classes: int, resamples: int, seed: int
) -> dict[str, np.ndarray]:
    """Each figure of `scores` in every resample `[R]`; `clip` `[N]` numbers the clip of each row from 0."""
    clips = int(clip.max()) + 1
    right, faithful = answer == gold, judged == gold
    columns = np.stack(
        [np.ones(len(gold)), right, faithful, (answer == judged) & (answer != UNKNOWN), right & faithful,
         right & ~faithful, answer == UNKNOWN], axis=1,
    ).astype(np.float64)  # fmt: skip
    members = (gold[:, None] == np.arange(classes)).astype(np.float64)
    weights = _weights(clips, resamples, seed)
    total = weights @ _sums(clip, clips, columns)
    count = weights @ _sums(clip, clips, members)
    hits = weights @ _sums(clip, clips, members * right[:, None])
    names = ("war", "eea", "epc", "fcr", "right_answer_wrong_reason", "unknown_rate")
    result = {name: total[:, i] / total[:, 0] for i, name in enumerate(names, start=1)}
    result["uar"] = (hits / np.maximum(count, 1)).mean(1)
    return result


def interval(draws: np.ndarray, level: float = 0.95) -> list[float]:
    """The percentile interval of bootstrap `draws` `[R]`."""
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return [float(low), float(high)]


def mcnemar(first: Sequence[bool], second: Sequence[bool]) -> float:
    """Exact two-sided p-value that two runs are right equally often on the same clips (one row per clip)."""
    a, b = np.asarray(first, dtype=bool), np.asarray(second, dtype=bool)
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    return float(binomtest(only_a, only_a + only_b, 0.5).pvalue) if only_a + only_b else 1.0


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values, in the given order."""
    order = np.argsort(p_values)
    adjusted = np.maximum.accumulate([p_values[i] * (len(p_values) - rank) for rank, i in enumerate(order)])
    result = np.empty(len(p_values))
    result[order] = np.minimum(adjusted, 1.0)
    return [float(p) for p in result]


def paired_difference(
    first: np.ndarray, second: np.ndarray, resamples: int = 2000, seed: int = 0
) -> tuple[float, list[float]]:
    """Mean of `second - first` and its interval, from per-clip means `[K]` of two runs over the same clips."""
    difference = np.asarray(second, dtype=np.float64) - np.asarray(first, dtype=np.float64)
    draws = _weights(len(difference), resamples, seed) @ difference / len(difference)
    return float(difference.mean()), interval(draws)
