"""Threshold and temperature of a verifier, chosen on held-out sentences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize_scalar

from erv.verifier.metrics import macro_f1, predicted_labels

THRESHOLDS = tuple(round(0.02 * i, 2) for i in range(1, 50))
_BINS = 10  # of a reliability curve


class SweepPoint(NamedTuple):
    """Scores at one threshold, with the reward's top-k and fallback."""

    threshold: float
    macro_f1: float
    labels_per_sentence: float


class ReliabilityBin(NamedTuple):
    """The entries of `[S, E]` whose probabilities lie in one bin."""

    mean_probability: float
    positive_share: float  # share of the entries whose target is 1
    entries: int


@dataclass(frozen=True)
class Calibration:
    """What was chosen for a verifier's logits, and the curves that it was chosen from."""

    threshold: float  # of the best macro F1, on the probabilities as trained, sigmoid(z)
    temperature: float  # T for which the targets are most likely under sigmoid(z / T)
    sweep: list[SweepPoint]
    before: list[ReliabilityBin]  # of sigmoid(z)
    after: list[ReliabilityBin]  # of sigmoid(z / T)


def calibrate(logits: np.ndarray, targets: np.ndarray, top_k: int, columns: Sequence[int]) -> Calibration:
    """Choose threshold and temperature for logits `[S, E]` and multi-hot targets `[S, E]`.

    Macro F1 is the mean over the classes `columns`.
    """
    temperature = fit_temperature(logits, targets)
    sweep = threshold_sweep(sigmoid(logits), targets, top_k, columns)
    before, after = (reliability_curve(sigmoid(z), targets) for z in (logits, logits / temperature))
    return Calibration(best_threshold(sweep), temperature, sweep, before, after)


def best_threshold(sweep: Sequence[SweepPoint]) -> float:
    """The threshold with the best macro F1; the middle one of several that are equal."""
    best = max(point.macro_f1 for point in sweep)
    thresholds = [point.threshold for point in sweep if point.macro_f1 >= best - 1e-9]
    return thresholds[len(thresholds) // 2]


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Compute probabilities from logits in float64, without overflow."""
    return np.exp(-np.logaddexp(0, -logits.astype(np.float64)))


def fit_temperature(logits: np.ndarray, targets: np.ndarray) -> float:
    """Find the T in [1/20, 20] that minimises the cross-entropy of sigmoid(logits / T) (Guo et al. 2017)."""

    def cross_entropy(log_t: float) -> float:
        z = logits.astype(np.float64) / np.exp(log_t)
        return float(np.mean(np.logaddexp(0, z) - targets * z))

    bound = float(np.log(20))  # searched on a log scale: T is a ratio
    return float(np.exp(minimize_scalar(cross_entropy, bounds=(-bound, bound), method="bounded").x))


def threshold_sweep(
    probabilities: np.ndarray,
    targets: np.ndarray,
    top_k: int,
    columns: Sequence[int],
) -> list[SweepPoint]:
    """Measure macro F1 over the classes `columns` and labels per sentence at each of THRESHOLDS."""
    sweep = []
    for threshold in THRESHOLDS:
        predicted = predicted_labels(probabilities, threshold, top_k)
        f1 = macro_f1(predicted, targets, columns)
        sweep.append(SweepPoint(threshold, f1, float(predicted.sum(1).mean())))
    return sweep


def reliability_curve(probabilities: np.ndarray, targets: np.ndarray) -> list[ReliabilityBin]:
    """Group all entries of `[S, E]` into bins of equal width by probability; empty bins are left out."""
    p, t = probabilities.ravel(), targets.ravel()
    bins = np.minimum((p * _BINS).astype(int), _BINS - 1)
    return [
        ReliabilityBin(float(p[bins == b].mean()), float(t[bins == b].mean()), int((bins == b).sum()))
        for b in np.unique(bins)
    ]
