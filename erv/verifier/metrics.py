"""How good a verifier is, and whether it is good enough to train a policy with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchmetrics.functional.classification import (
    binary_average_precision,
    binary_calibration_error,
    multilabel_f1_score,
    multilabel_precision,
    multilabel_recall,
)

CEILING = 0.95  # on templated text a bag of words is perfect, and a verifier beside it good enough without being better


class UnfitVerifier(Exception):
    """The verifier is too weak to be a reward."""


def chosen(probabilities: np.ndarray, threshold: float, top_k: int) -> np.ndarray:
    """The emotions `[S, E]` that the reward gives: above `threshold`, at most `top_k`, the likeliest when none is."""
    rank = np.argsort(np.argsort(-probabilities, axis=1, kind="stable"), axis=1)
    return ((probabilities > threshold) & (rank < top_k)) | ((rank == 0) & (probabilities <= threshold))


def macro_f1(picked: np.ndarray, targets: np.ndarray, columns: Sequence[int]) -> float:
    """Macro F1 over the classes `columns` of what was picked `[S, E]`."""
    p, t = (_tensor(values[:, list(columns)]) for values in (picked, targets))
    return float(multilabel_f1_score(p, t, len(columns), average="macro"))


def scores(
    probabilities: np.ndarray, targets: np.ndarray, threshold: float, top_k: int, columns: Sequence[int] | None = None
) -> dict[str, float]:  # fmt: skip
    """Figures of probabilities and multi-hot targets `[S, E]`.

    macro and micro F1, macro precision and recall with the emotions that the reward gives a sentence; mean average
    precision over the classes that occur, expected calibration error over all entries, and emotions per sentence. Means are
    over the classes `columns` (default: all), those that the sentences can be labelled with.
    """
    picked, kept = chosen(probabilities, threshold, top_k), list(columns or range(targets.shape[1]))
    p, t, size = _tensor(picked[:, kept]), _tensor(targets[:, kept]), len(kept)
    return {
        "macro_f1": float(multilabel_f1_score(p, t, size, average="macro")),
        "micro_f1": float(multilabel_f1_score(p, t, size, average="micro")),
        "macro_precision": float(multilabel_precision(p, t, size, average="macro")),
        "macro_recall": float(multilabel_recall(p, t, size, average="macro")),
        "map": _mean_average_precision(probabilities[:, kept], targets[:, kept]),
        "ece": calibration_error(probabilities[:, kept], targets[:, kept]),
        "labels_per_sentence": float(picked.sum(1).mean()),
    }


def per_class(
    probabilities: np.ndarray, targets: np.ndarray, threshold: float, top_k: int, labels: Mapping[str, int]
) -> dict[str, dict[str, float]]:  # fmt: skip
    """Precision, recall, F1 and sentences of each class; `labels` maps names to columns."""
    kept = list(labels.values())
    p, t = _tensor(chosen(probabilities, threshold, top_k)[:, kept]), _tensor(targets[:, kept])
    rows: dict[str, Any] = {
        "precision": multilabel_precision(p, t, len(kept), average="none"),
        "recall": multilabel_recall(p, t, len(kept), average="none"),
        "f1": multilabel_f1_score(p, t, len(kept), average="none"),
        "sentences": t.sum(0),
    }
    return {label: {name: float(values[i]) for name, values in rows.items()} for i, label in enumerate(labels)}


def calibration_error(probabilities: np.ndarray, targets: np.ndarray) -> float:
    """Expected calibration error in [0, 1] over all entries `[S, E]`, 15 bins."""
    p, t = torch.from_numpy(probabilities.ravel().astype(np.float32)), _tensor(targets.ravel())
    return float(binary_calibration_error(p, t, n_bins=15, norm="l1"))


def _mean_average_precision(probabilities: np.ndarray, targets: np.ndarray) -> float:
    p, t = torch.from_numpy(probabilities.astype(np.float32)), _tensor(targets)
    found = [float(binary_average_precision(p[:, i], t[:, i])) for i in range(t.shape[1]) if t[:, i].any()]
    return sum(found) / len(found) if found else float("nan")


def _tensor(values: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values).astype(np.int64))


def gate(
    metrics: Mapping[str, Any],
    margin_over_baseline: float | None = 0.0,
    macro_f1: float | None = None,
    labels_per_sentence: float | None = None,
) -> None:
    """Raise UnfitVerifier unless a verifier's scores allow training a policy with it; None checks nothing.

    metrics: a verifier run's metrics.json. `margin_over_baseline` asks for that much more macro F1 than TF-IDF with logistic
    regression has, trained on the same rows; a verifier is refused when the 95 % interval of the difference lies below it
    and its own macro F1 below `CEILING`.
    `macro_f1` and `labels_per_sentence` are absolute limits on held-out sentences at the reward's threshold. A verifier that
    names every emotion everywhere still rewards, only not coherence, and nothing else would show it.
    """
    heldout: Mapping[str, float] = metrics["heldout"]
    baseline: Mapping[str, Any] | None = metrics.get("baseline")
    problems = []
    if (
        margin_over_baseline is not None
        and baseline is not None
        and baseline["verifier_macro_f1"] < CEILING
        and baseline["high"] < margin_over_baseline
    ):
        problems.append(
            f"its macro F1 on {baseline['measured_on']} sentences is {baseline['verifier_macro_f1']:.3f}, that of TF-IDF with "
            f"logistic regression on the same rows {baseline['macro_f1']:.3f} (difference {baseline['difference']:+.3f}, 95 % "
            f"interval [{baseline['low']:+.3f}, {baseline['high']:+.3f}]); verifier.gate.margin_over_baseline asks for "
            f"{margin_over_baseline:+g}"
        )
    if macro_f1 is not None and heldout["macro_f1"] < macro_f1:
        problems.append(
            f"held-out macro F1 is {heldout['macro_f1']:.3f}, verifier.gate.macro_f1 asks for at least {macro_f1}"
        )
    if labels_per_sentence is not None and heldout["labels_per_sentence"] >= labels_per_sentence:
        problems.append(
            f"it finds {heldout['labels_per_sentence']:.2f} emotions a sentence, verifier.gate.labels_per_sentence allows fewer "
            f"than {labels_per_sentence}"
        )
    if problems:
        raise UnfitVerifier(
            f"this verifier must not train a policy: {'; '.join(problems)}. Train it longer, on more rows or from another "
            "encoder, or change that key; verifier.gate=null checks nothing"
        )
