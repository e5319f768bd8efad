"""Bootstrap intervals of the metrics, over clips.

A clip is the unit: several answers to it are drawn together, since they are not independent. By default clips are drawn within
the gold classes: which classes a benchmark's test split holds, and how many clips of each, is the same for every model and every
repetition, so it is no source of error; and no resample lacks a rare class, where recall would have no meaning.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from erv.evaluation.metrics.answer_table import AnswerTable
from erv.evaluation.metrics.scores import weighted_scores

_CHUNK = 500  # resamples at a time: 500 x 10,000 clips are 40 MB


def interval(draws: np.ndarray, level: float = 0.95) -> list[float]:
    """The percentile interval of bootstrap `draws` `[R]`."""
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return [float(low), float(high)]


def draw_weights(strata: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """How often each clip is drawn `[R, K]`, as many within each stratum as it has; all strata equal: a plain bootstrap."""
    rng = np.random.default_rng(seed)
    weights = np.zeros((resamples, len(strata)))
    for stratum in np.unique(strata):
        members = np.flatnonzero(strata == stratum)
        size = len(members)
        # one bincount over all resamples, each with its own range of numbers: multinomial would draw a binomial for every clip
        drawn = rng.integers(0, size, (resamples, size)) + np.arange(resamples)[:, None] * size
        weights[:, members] = np.bincount(drawn.ravel(), minlength=resamples * size).reshape(resamples, size)
    return weights


def weight_chunks(strata: np.ndarray, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """The weights of `resamples` draws, in chunks `[r, K]` that fit into memory."""
    for number, start in enumerate(range(0, resamples, _CHUNK)):
        yield draw_weights(strata, min(_CHUNK, resamples - start), seed + 7919 * number)


def strata_of(table: AnswerTable, stratified: bool) -> np.ndarray:
    """The stratum of each clip `[K]`: its gold class, or the same for all."""
    return table.gold_of_clips if stratified else np.zeros(len(table.clip_ids), dtype=np.int64)


def bootstrap_scores(
    table: AnswerTable,
    resamples: int = 2000,
    seed: int = 0,
    stratified: bool = True,
) -> dict[str, np.ndarray]:
    """Every answer metric in every resample `[R]`."""
    weighted = weighted_scores(table)
    chunks = [weighted(weights) for weights in weight_chunks(strata_of(table, stratified), resamples, seed)]
    return {name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]}


def paired_difference(
    first: np.ndarray,
    second: np.ndarray,
    resamples: int = 2000,
    seed: int = 0,
    strata: np.ndarray | None = None,
) -> tuple[float, list[float]]:
    """Mean of `second - first` and its interval, from per-clip means `[K]` of two runs over the same clips."""
    difference = np.asarray(second, dtype=np.float64) - np.asarray(first, dtype=np.float64)
    strata = np.zeros(len(difference), dtype=np.int64) if strata is None else strata
    draws = draw_weights(strata, resamples, seed) @ difference / len(difference)
    return float(difference.mean()), interval(draws)
