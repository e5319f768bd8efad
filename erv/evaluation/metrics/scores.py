"""The metrics of METRICS, computed: on a table of answers, on resampled clips, and on texts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np

from erv.evaluation.metrics.answer_table import AnswerTable
from erv.evaluation.metrics.definitions import METRICS, AnswerShare, ClassAverage, TextMean
from erv.evaluation.metrics.text_stats import Answers


def scores(table: AnswerTable) -> dict[str, float]:
    """Every answer metric, as a fraction, by name."""
    result = {}
    for name, metric in METRICS.items():
        if isinstance(metric.compute, AnswerShare):
            result[name] = float(metric.compute.counts(table).mean())
        elif isinstance(metric.compute, ClassAverage):
            hits, counted, exists = metric.compute.parts(table)
            per_class = hits.sum(0) / np.maximum(counted.sum(0), 1)
            result[name] = float(per_class[exists.any(0)].mean())
    return result


def weighted_scores(table: AnswerTable) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """A function from how often each clip counts `[R, K]` to every answer metric `[R]`.

    Rows are summed within their clips once, so that all resamples of a bootstrap are a few matrix products.
    """
    shares = {n: m.compute.counts(table) for n, m in METRICS.items() if isinstance(m.compute, AnswerShare)}
    answers_and_hits = sum_by_clip(table.clip, np.stack([np.ones(len(table.gold)), *shares.values()], axis=1))
    class_parts = {
        name: tuple(sum_by_clip(table.clip, part) for part in metric.compute.parts(table))
        for name, metric in METRICS.items()
        if isinstance(metric.compute, ClassAverage)
    }

    def weighted(weights: np.ndarray) -> dict[str, np.ndarray]:
        total = weights @ answers_and_hits
        result = {name: total[:, i] / total[:, 0] for i, name in enumerate(shares, start=1)}
        for name, (hits, counted, exists) in class_parts.items():
            per_class = (weights @ hits) / np.maximum(weights @ counted, 1)
            present = (weights @ exists) > 0
            result[name] = (per_class * present).sum(1) / np.maximum(present.sum(1), 1)
        return result

    return weighted


def sum_by_clip(clip: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Sum of `values` `[N, M]` over the rows of each clip `[K, M]`."""
    sums = np.zeros((int(clip.max()) + 1, values.shape[1]))
    np.add.at(sums, clip, values)
    return sums


def text_scores(answers: Answers, section: Literal["format", "rationales"]) -> dict[str, float | None]:
    """The text metrics of a section of metrics.json, by name; None where there is nothing to measure."""
    result: dict[str, float | None] = {}
    for name, metric in METRICS.items():
        if isinstance(metric.compute, TextMean) and metric.section == section:
            values = metric.compute.values(answers)
            result[name] = float(np.mean(np.asarray(values, dtype=np.float64))) if len(values) else None
    return result
