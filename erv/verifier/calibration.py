"""Threshold and temperature of a verifier, chosen on held-out sentences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize_scalar

from erv.verifier.metrics import chosen, macro_f1

THRESHOLDS = tuple(round(0.02 * i, 2) for i in range(1, 50))
_BINS = 10


@dataclass(frozen=True)
class Calibration:
    """`threshold` has the best macro F1 on plain probabilities sigmoid(z); `temperature` T makes sigmoid(z / T) most likely.

    `sweep` holds (threshold, macro F1, emotions a sentence); `before` and `after` are reliability curves without and with
    the temperature, as (mean probability, share that is right, entries) per bin.
    """

    threshold: float
    temperature: float
    sweep: list[tuple[float, float, float]]
    before: list[tuple[float, float, int]]
    after: list[tuple[float, float, int]]


def calibrate(logits: np.ndarray, targets: np.ndarray, top_k: int, columns: Sequence[int]) -> Calibration:
    """Choose on logits `[S, E]` and multi-hot targets `[S, E]`; F1 is the mean over the classes `columns`."""
    scale = temperature(logits, targets)
    rows = sweep(sigmoid(logits), targets, top_k, columns)
    threshold = best_threshold(rows)
    curves = [reliability(sigmoid(z), targets) for z in (logits, logits / scale)]
    return Calibration(threshold, scale, rows, curves[0], curves[1])


def best_threshold(rows: Sequence[tuple[float, float, float]]) -> float:
    """The threshold of the best macro F1 in rows of `sweep`; of several that are equal, the middle one."""
    best = max(f for _, f, _ in rows)
    level = [t for t, f, _ in rows if f >= best - 1e-9]
    return level[len(level) // 2]


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Probabilities of logits, without overflow."""
    return np.exp(-np.logaddexp(0, -logits.astype(np.float64)))


def temperature(logits: np.ndarray, targets: np.ndarray) -> float:
    """The T that minimises the cross-entropy of sigmoid(logits / T) (Guo et al. 2017), between 1/20 and 20."""

    def loss(log_t: float) -> float:
        z = logits.astype(np.float64) / np.exp(log_t)
        return float(np.mean(np.logaddexp(0, z) - targets * z))

    bound = float(np.log(20))
    return float(np.exp(minimize_scalar(loss, bounds=(-bound, bound), method="bounded").x))


def sweep(
    probabilities: np.ndarray, targets: np.ndarray, top_k: int, columns: Sequence[int]
) -> list[tuple[float, float, float]]:  # fmt: skip
    """(threshold, macro F1, emotions a sentence) over THRESHOLDS, with the reward's top-k and fallback."""
    found = []
    for threshold in THRESHOLDS:
        picked = chosen(probabilities, threshold, top_k)
        found.append((threshold, macro_f1(picked, targets, columns), float(picked.sum(1).mean())))
    return found


def reliability(probabilities: np.ndarray, targets: np.ndarray) -> list[tuple[float, float, int]]:
    """(mean probability, share of positives, entries) of the bins of equal width that are not empty."""
    p, t = probabilities.ravel(), targets.ravel()
    bins = np.minimum((p * _BINS).astype(int), _BINS - 1)
    return [(float(p[bins == b].mean()), float(t[bins == b].mean()), int((bins == b).sum())) for b in np.unique(bins)]
