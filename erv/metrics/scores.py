"""WAR, UAR, EEA, EPC, FCR and their companions, over arrays of class indices.

Spec: evaluation.md. All take integer arrays `[N]` with -1 for an answer that names no label (unknown) or a verdict that is not
"ok"; neither ever equals a gold label, so both count as wrong and stay in every denominator.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

UNKNOWN = -1
NAMES = ("war", "uar", "eea", "epc", "fcr", "right_answer_wrong_reason", "unknown_rate")


def indices(labels: Sequence[str | None], taxonomy: Sequence[str]) -> np.ndarray:
    """Label -> its position in the taxonomy, None -> UNKNOWN; KeyError for a label off the list."""
    position: dict[str | None, int] = {label: i for i, label in enumerate(taxonomy)}
    position[None] = UNKNOWN
    return np.array([position[label] for label in labels], dtype=np.int64)


def recalls(gold: np.ndarray, answer: np.ndarray, classes: int) -> np.ndarray:
    """Recall of each class `[E]`, 0 for a class without samples (the fixed label set is the denominator of UAR)."""
    count = np.bincount(gold, minlength=classes)
    right = np.bincount(gold[gold == answer], minlength=classes)
    return right / np.maximum(count, 1)


def scores(gold: np.ndarray, answer: np.ndarray, judged: np.ndarray, classes: int) -> dict[str, float]:
    """The figures of `NAMES`, as fractions.

    WAR = P(answer = gold), UAR = mean recall, EEA = P(judged = gold), EPC = P(answer = judged, both known),
    FCR = P(answer = gold and judged = gold); right_answer_wrong_reason = WAR - FCR.
    """
    right, faithful = answer == gold, judged == gold
    return {
        "war": float(right.mean()),
        "uar": float(recalls(gold, answer, classes).mean()),
        "eea": float(faithful.mean()),
        "epc": float(((answer == judged) & (answer != UNKNOWN)).mean()),
        "fcr": float((right & faithful).mean()),
        "right_answer_wrong_reason": float((right & ~faithful).mean()),
        "unknown_rate": float((answer == UNKNOWN).mean()),
    }


def confusion(gold: np.ndarray, answer: np.ndarray, classes: int) -> np.ndarray:
    """Counts `[E, E + 1]`, gold by answer, unknown in the last column."""
    table = np.zeros((classes, classes + 1), dtype=np.int64)
    np.add.at(table, (gold, answer), 1)  # index -1 is the last column
    return table
