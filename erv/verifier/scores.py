"""How good a verifier is, and whether it is good enough to train a policy with."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torchmetrics.functional.classification import multilabel_f1_score, multilabel_precision, multilabel_recall


class UnfitVerifier(Exception):
    """The verifier is too weak to be a reward."""


def scores(probabilities: np.ndarray, targets: np.ndarray, threshold: float, top_k: int) -> dict[str, float]:
    """Macro and micro F1, macro precision and recall, and emotions per sentence, of probabilities and multi-hot `[S, E]`.

    A sentence has the emotions that the reward gives it: above `threshold`, at most `top_k`, the likeliest when none is.
    """
    rank = np.argsort(np.argsort(-probabilities, axis=1, kind="stable"), axis=1)
    chosen = ((probabilities > threshold) & (rank < top_k)) | ((rank == 0) & (probabilities <= threshold))
    p, t = torch.from_numpy(chosen.astype(np.int64)), torch.from_numpy(targets.astype(np.int64))
    size = targets.shape[1]
    return {
        "macro_f1": float(multilabel_f1_score(p, t, size, average="macro")),
        "micro_f1": float(multilabel_f1_score(p, t, size, average="micro")),
        "macro_precision": float(multilabel_precision(p, t, size, average="macro")),
        "macro_recall": float(multilabel_recall(p, t, size, average="macro")),
        "labels_per_sentence": float(chosen.sum(1).mean()),
    }


def gate(metrics: Mapping[str, float], macro_f1: float = 0.95, labels_per_sentence: float = 1.2) -> None:
    """Raise UnfitVerifier unless the held-out scores allow training with this verifier.

    A verifier that finds every emotion everywhere still rewards, only not coherence, and nothing else would show it.
    """
    problems = []
    if metrics["macro_f1"] < macro_f1:
        problems.append(f"held-out macro F1 is {metrics['macro_f1']:.3f}, at least {macro_f1} is needed")
    if metrics["labels_per_sentence"] >= labels_per_sentence:
        problems.append(
            f"it finds {metrics['labels_per_sentence']:.2f} emotions a sentence, {labels_per_sentence} are too many"
        )
    if problems:
        raise UnfitVerifier(
            f"this verifier must not train a policy: {'; '.join(problems)}. Train it with another seed or a lower optim.lr, "
            "or lower verifier.gate.macro_f1 / raise verifier.gate.labels_per_sentence knowing what that means"
        )
