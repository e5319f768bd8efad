"""Bootstrap intervals of the figures, over clips.

A clip is the unit: several answers to it are drawn together, since they are not independent. Drawn within the gold classes by
default: which classes a benchmark's test split holds, and how many clips of each, is the same for every model and every
repetition, so it is no source of error; and no resample lacks a rare class, where recall would have no meaning.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from erv.evaluation.metrics.scores import Table, recall_parts

_CHUNK = 500  # resamples at a time: 500 x 10,000 clips are 40 MB


def interval(draws: np.ndarray, level: float = 0.95) -> list[float]:
    """The percentile interval of bootstrap `draws` `[R]`."""
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return [float(low), float(high)]


def weights(strata: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """How often each clip is drawn `[R, K]`, as many within each stratum as it has; all strata equal: a plain bootstrap."""
    rng = np.random.default_rng(seed)
    found = np.zeros((resamples, len(strata)))
    for stratum in np.unique(strata):
        members = np.flatnonzero(strata == stratum)
        size = len(members)
        # counted at once in one long row: multinomial would draw a binomial for every clip
        picked = rng.integers(0, size, (resamples, size)) + np.arange(resamples)[:, None] * size
        found[:, members] = np.bincount(picked.ravel(), minlength=resamples * size).reshape(resamples, size)
    return found


def totals(clip: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Sum of `values` `[N, M]` within each clip `[K, M]`."""
    table = np.zeros((int(clip.max()) + 1, values.shape[1]))
    np.add.at(table, clip, values)
    return table


def drawn(strata: np.ndarray, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """The `weights` of `resamples` draws, in parts `[r, K]` that fit into memory."""
    for number, start in enumerate(range(0, resamples, _CHUNK)):
        yield weights(strata, min(_CHUNK, resamples - start), seed + 7919 * number)


def strata_of(table: Table, stratified: bool) -> np.ndarray:
    """The stratum of each clip `[K]`: its gold class, or one for all."""
    return table.strata if stratified else np.zeros(len(table.ids), dtype=np.int64)


def resampled(table: Table, resamples: int = 2000, seed: int = 0, stratified: bool = True) -> dict[str, np.ndarray]:
    """Each figure of `scores` in every resample `[R]`."""
    measure = figures_of(table)
    found = [measure(part) for part in drawn(strata_of(table, stratified), resamples, seed)]
    return {name: np.concatenate([part[name] for part in found]) for name in found[0]}


def figures_of(table: Table) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """A function from how often each clip counts `[R, K]` to each figure `[R]`."""
    columns = table.columns()
    shares = totals(table.clip, np.stack([np.ones(len(table.gold)), *columns.values()], axis=1))
    right, counted, exists = (totals(table.clip, part) for part in recall_parts(table))

    def measure(weight: np.ndarray) -> dict[str, np.ndarray]:
        total = weight @ shares
        found = {name: total[:, i] / total[:, 0] for i, name in enumerate(columns, start=1)}
        recall = (weight @ right) / np.maximum(weight @ counted, 1)
        present = (weight @ exists) > 0
        found["uar"] = (recall * present).sum(1) / np.maximum(present.sum(1), 1)
        return found

    return measure


def paired_difference(
    first: np.ndarray, second: np.ndarray, resamples: int = 2000, seed: int = 0, strata: np.ndarray | None = None
) -> tuple[float, list[float]]:
    """Mean of `second - first` and its interval, from per-clip means `[K]` of two runs over the same clips."""
    difference = np.asarray(second, dtype=np.float64) - np.asarray(first, dtype=np.float64)
    groups = np.zeros(len(difference), dtype=np.int64) if strata is None else strata
    draws = weights(groups, resamples, seed) @ difference / len(difference)
    return float(difference.mean()), interval(draws)
