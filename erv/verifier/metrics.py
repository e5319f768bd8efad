"""Scores of a verifier, and the check that they allow training a policy with it."""

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

from erv.errors import UserError

# Macro F1 from which a verifier passes without being better than the baseline: on templated text a bag of words is perfect.
SUFFICIENT_F1 = 0.95


class UnfitVerifier(UserError):
    """The verifier is too weak to be a reward."""


def predicted_labels(probabilities: np.ndarray, threshold: float, top_k: int) -> np.ndarray:
    """Select the emotions that the explanation reward gives each sentence, as bool `[S, E]`.

    These are the emotions above `threshold`, at most the `top_k` likeliest; the likeliest one where none is above.
    """
    # a double argsort gives ranks; stable, so that of equal probabilities the first counts, as in the reward
    rank = np.argsort(np.argsort(-probabilities, axis=1, kind="stable"), axis=1)
    return ((probabilities > threshold) & (rank < top_k)) | ((rank == 0) & (probabilities <= threshold))


def macro_f1(predicted: np.ndarray, targets: np.ndarray, columns: Sequence[int]) -> float:
    """Compute macro F1 of predicted labels and targets `[S, E]` over the classes `columns`."""
    p, t = (_tensor(values[:, list(columns)]) for values in (predicted, targets))
    return float(multilabel_f1_score(p, t, len(columns), average="macro"))


def scores(
    probabilities: np.ndarray,
    targets: np.ndarray,
    threshold: float,
    top_k: int,
    columns: Sequence[int] | None = None,
) -> dict[str, float]:
    """Compute the scores of probabilities `[S, E]` against multi-hot targets `[S, E]`.

    Args:
        probabilities: Probability of each emotion.
        targets: Multi-hot labels.
        threshold: The reward's threshold (`predicted_labels`).
        top_k: The reward's most emotions per sentence.
        columns: Classes that sentences can be labelled with, over which means are taken (default: all).

    Returns:
        macro_f1, micro_f1, macro_precision, macro_recall of the predicted labels; map, the mean average precision over the
        classes that occur; ece, the expected calibration error over all entries; labels_per_sentence.
    """
    predicted, classes = predicted_labels(probabilities, threshold, top_k), list(columns or range(targets.shape[1]))
    p, t, size = _tensor(predicted[:, classes]), _tensor(targets[:, classes]), len(classes)
    return {
        "macro_f1": float(multilabel_f1_score(p, t, size, average="macro")),
        "micro_f1": float(multilabel_f1_score(p, t, size, average="micro")),
        "macro_precision": float(multilabel_precision(p, t, size, average="macro")),
        "macro_recall": float(multilabel_recall(p, t, size, average="macro")),
        "map": _mean_average_precision(probabilities[:, classes], targets[:, classes]),
        "ece": calibration_error(probabilities[:, classes], targets[:, classes]),
        "labels_per_sentence": float(predicted.sum(1).mean()),
    }


def per_class(
    probabilities: np.ndarray,
    targets: np.ndarray,
    threshold: float,
    top_k: int,
    labels: Mapping[str, int],
) -> dict[str, dict[str, float]]:
    """Compute precision, recall, F1 and the number of sentences of each class; `labels` maps names to columns."""
    columns = list(labels.values())
    p = _tensor(predicted_labels(probabilities, threshold, top_k)[:, columns])
    t = _tensor(targets[:, columns])
    rows: dict[str, Any] = {
        "precision": multilabel_precision(p, t, len(columns), average="none"),
        "recall": multilabel_recall(p, t, len(columns), average="none"),
        "f1": multilabel_f1_score(p, t, len(columns), average="none"),
        "sentences": t.sum(0),
    }
    return {label: {name: float(values[i]) for name, values in rows.items()} for i, label in enumerate(labels)}


def calibration_error(probabilities: np.ndarray, targets: np.ndarray) -> float:
    """Compute the expected calibration error in [0, 1] over all entries of `[S, E]`, with 15 bins."""
    p, t = torch.from_numpy(probabilities.ravel().astype(np.float32)), _tensor(targets.ravel())
    return float(binary_calibration_error(p, t, n_bins=15, norm="l1"))


def _mean_average_precision(probabilities: np.ndarray, targets: np.ndarray) -> float:
    p, t = torch.from_numpy(probabilities.astype(np.float32)), _tensor(targets)
    precisions = [float(binary_average_precision(p[:, i], t[:, i])) for i in range(t.shape[1]) if t[:, i].any()]
    return sum(precisions) / len(precisions) if precisions else float("nan")


def _tensor(values: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values).astype(np.int64))


def gate(
    metrics: Mapping[str, Any],
    margin_over_baseline: float | None = 0.0,
    macro_f1: float | None = None,
    labels_per_sentence: float | None = None,
) -> None:
    """Refuse a verifier whose scores do not allow training a policy with it; a limit of None is not checked.

    Args:
        metrics: Content of metrics.json of the verifier's run.
        margin_over_baseline: Macro F1 that the verifier must have above that of TF-IDF with logistic regression, trained on
            the same rows. It is refused when the 95 % interval of the difference lies below the margin and its own macro F1
            below `SUFFICIENT_F1`.
        macro_f1: Least macro F1 on held-out sentences at the reward's threshold.
        labels_per_sentence: Upper limit of emotions per held-out sentence. A verifier that names every emotion everywhere
            rewards any text, which no other score would show.

    Raises:
        UnfitVerifier: Listing every limit that is missed, and the keys to change.
    """
    heldout: Mapping[str, float] = metrics["heldout"]
    baseline: Mapping[str, Any] | None = metrics.get("baseline")
    problems = []
    if (
        margin_over_baseline is not None
        and baseline is not None
        and baseline["verifier_macro_f1"] < SUFFICIENT_F1
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
