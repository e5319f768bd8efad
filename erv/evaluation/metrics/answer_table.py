"""Answers and verdicts as arrays of class indices, and what is counted on them (spec: evaluation.md).

UNKNOWN stands for an answer that names no label and for a verdict that is not "ok". It never equals a gold label, so such a row
counts as wrong and, in the default mode, stays in every denominator.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

UNKNOWN = -1
QUADRANTS = ("right_coherent", "right_incoherent", "wrong_coherent", "wrong_incoherent")
RecallClasses = Literal["labels", "labels_without_unknown", "union"]


@dataclass(frozen=True)
class AnswerTable:
    """Answers to clips, one row per answer; several answers to one clip are not independent, hence `clip`.

    `recall_over` says over which classes and rows UAR averages recall:
    "labels": the label set, every row (our own counting);
    "labels_without_unknown": without the rows whose answer is unknown (the released code on MAFW);
    "union": every label that occurs as gold or as answer, where unknown answers are classes too, numbered from `classes` on
    (HumanOmni's code).
    """

    gold: np.ndarray  # int64 [N], true class
    answer: np.ndarray  # int64 [N], class that the policy answered
    judged: np.ndarray  # int64 [N], class that the judge read in the explanation
    classes: int  # size E of the label set
    compared: (
        np.ndarray
    )  # int64 [N], answer that the explanation is compared with; the released code parses it differently
    clip: np.ndarray  # int64 [N], index of the row's clip in `clip_ids`
    clip_ids: tuple[str, ...]  # K clips, sorted
    recall_over: RecallClasses = "labels"

    @classmethod
    def of(
        cls,
        gold: Sequence[int],
        answer: Sequence[int],
        judged: Sequence[int] | None,
        classes: int,
        clip_ids: Sequence[str] | None = None,
        compared: Sequence[int] | None = None,
        recall_over: RecallClasses = "labels",
    ) -> AnswerTable:
        """Build a table from one entry per row.

        Args:
            judged: None when no judge read anything.
            clip_ids: the clip of each row; None when every row is a clip of its own.
            compared: None when it is `answer`.
        """
        rows = len(gold)
        if rows == 0:
            raise ValueError("there are no answers to measure")
        names = [str(i) for i in range(rows)] if clip_ids is None else [str(i) for i in clip_ids]
        unique, clip = np.unique(names, return_inverse=True)
        answers = np.asarray(answer, dtype=np.int64)
        return cls(
            gold=np.asarray(gold, dtype=np.int64),
            answer=answers,
            judged=np.full(rows, UNKNOWN) if judged is None else np.asarray(judged, dtype=np.int64),
            classes=classes,
            compared=answers if compared is None else np.asarray(compared, dtype=np.int64),
            clip=clip,
            clip_ids=tuple(map(str, unique)),
            recall_over=recall_over,
        )

    @property
    def gold_of_clips(self) -> np.ndarray:
        """The gold class of each clip `[K]`."""
        gold = np.full(len(self.clip_ids), UNKNOWN)
        gold[self.clip] = self.gold
        return gold


def label_indices(labels: Sequence[str | None], taxonomy: Sequence[str]) -> np.ndarray:
    """Positions of `labels` in the taxonomy, UNKNOWN for None; KeyError for a label off the list."""
    position: dict[str | None, int] = {label: i for i, label in enumerate(taxonomy)}
    position[None] = UNKNOWN
    return np.array([position[label] for label in labels], dtype=np.int64)


# What an answer must be like to count for a metric that is a share of answers: bool [N] each.


def answer_is_right(table: AnswerTable) -> np.ndarray:
    """WAR: answer = gold."""
    return table.answer == table.gold


def explanation_is_right(table: AnswerTable) -> np.ndarray:
    """EEA: judged = gold."""
    return table.judged == table.gold


def explanation_matches_answer(table: AnswerTable) -> np.ndarray:
    """EPC: answer = judged, where both are labels: two unknowns do not agree."""
    return (table.compared == table.judged) & (table.compared >= 0) & (table.compared < table.classes)


def both_are_right(table: AnswerTable) -> np.ndarray:
    """FCR: answer = gold and judged = gold."""
    return (table.compared == table.gold) & (table.judged == table.gold)


def right_answer_wrong_reason(table: AnswerTable) -> np.ndarray:
    """WAR - FCR: answer = gold and judged != gold."""
    return (table.compared == table.gold) & (table.judged != table.gold)


def answer_is_unknown(table: AnswerTable) -> np.ndarray:
    """The answer names no label of the list."""
    return (table.answer < 0) | (table.answer >= table.classes)


def recall_parts(table: AnswerTable) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What UAR is made of, as bool `[N, C]` per row and class: right answers, rows that count, classes that exist.

    UAR is the mean, over the classes that exist in some row, of sum(right answers) / sum(rows that count), 0 for 0 / 0. In the
    modes other than "union" every class of the label set exists.
    """
    union = table.recall_over == "union"
    classes = np.arange(max(table.classes, int(table.answer.max()) + 1) if union else table.classes)
    gold = table.gold[:, None] == classes
    right = gold & (table.answer == table.gold)[:, None]
    if union:
        return right, gold, gold | (table.answer[:, None] == classes)
    counted = gold & ~answer_is_unknown(table)[:, None] if table.recall_over == "labels_without_unknown" else gold
    return right, counted, np.ones_like(gold)


def class_recalls(gold: np.ndarray, answer: np.ndarray, classes: int) -> np.ndarray:
    """Recall of each class `[E]`, 0 for a class without samples."""
    count = np.bincount(gold, minlength=classes)
    right = np.bincount(gold[gold == answer], minlength=classes)
    return right / np.maximum(count, 1)


def quadrant_of_rows(table: AnswerTable) -> np.ndarray:
    """Index into QUADRANTS of each row `[N]`: is the answer right, does the explanation speak of the true emotion."""
    return 2 * (table.compared != table.gold) + (table.judged != table.gold)


def quadrants(table: AnswerTable) -> dict[str, float]:
    """The share of rows in each of QUADRANTS; right_coherent is FCR."""
    shares = np.bincount(quadrant_of_rows(table), minlength=4) / len(table.gold)
    return {name: float(shares[i]) for i, name in enumerate(QUADRANTS)}


def confusion(gold: np.ndarray, answer: np.ndarray, classes: int) -> np.ndarray:
    """Counts `[E, E + 1]`, gold by answer, unknown answers in the last column."""
    counts = np.zeros((classes, classes + 1), dtype=np.int64)
    unknown = (answer < 0) | (answer >= classes)
    np.add.at(counts, (gold, np.where(unknown, classes, answer)), 1)
    return counts
