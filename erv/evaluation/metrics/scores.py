"""WAR, UAR, EEA, EPC, FCR and their companions, over arrays of class indices (spec: evaluation.md).

UNKNOWN stands for an answer that names no label and for a verdict that is not "ok". Neither ever equals a gold label, so both
count as wrong and, in the default mode, stay in every denominator.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

UNKNOWN = -1
NAMES = ("war", "uar", "eea", "epc", "fcr", "right_answer_wrong_reason", "unknown_rate")
JUDGED = ("eea", "epc", "fcr", "right_answer_wrong_reason")  # the figures that need a judge
QUADRANTS = ("right_coherent", "right_incoherent", "wrong_coherent", "wrong_incoherent")
Classes = Literal["fixed", "known", "union"]


@dataclass(frozen=True)
class Table:
    """Answers to clips as class indices, one row an answer, arrays of int64 `[N]`.

    `answer` is what the policy said, `judged` what the judge read in its explanation, `said` the answer that the explanation
    is compared with (the released code reads it another way; otherwise it is `answer`). `clip` numbers the rows' clips in
    `ids`: several answers to one clip are not independent.

    `uar` is over which classes and rows recall is averaged. "fixed": the label set, every row. "known": without the rows
    whose answer is unknown (the released code on MAFW). "union": every label that occurs as gold or as answer, unknown
    answers being classes of their own, numbered from `classes` on (HumanOmni's code).
    """

    gold: np.ndarray
    answer: np.ndarray
    judged: np.ndarray
    classes: int
    said: np.ndarray
    clip: np.ndarray
    ids: tuple[str, ...]
    uar: Classes = "fixed"

    @classmethod
    def of(
        cls, gold: Sequence[int], answer: Sequence[int], judged: Sequence[int] | None, classes: int,
        ids: Sequence[str] | None = None, said: Sequence[int] | None = None, uar: Classes = "fixed",
    ) -> Table:  # fmt: skip
        """A table of plain sequences. `judged` None: no judge has read anything. `ids` None: every row is a clip."""
        count = len(gold)
        if count == 0:
            raise ValueError("there are no answers to measure")
        names = [str(i) for i in range(count)] if ids is None else [str(i) for i in ids]
        unique, clip = np.unique(names, return_inverse=True)
        answers = np.asarray(answer, dtype=np.int64)
        read = np.full(count, UNKNOWN) if judged is None else np.asarray(judged, dtype=np.int64)
        compared = answers if said is None else np.asarray(said, dtype=np.int64)
        return cls(
            np.asarray(gold, dtype=np.int64), answers, read, classes, compared, clip, tuple(map(str, unique)), uar
        )

    @property
    def unknown(self) -> np.ndarray:
        """Which answers name no label of the list, bool `[N]`."""
        return (self.answer < 0) | (self.answer >= self.classes)

    @property
    def strata(self) -> np.ndarray:
        """The gold class of each clip `[K]`."""
        found = np.full(len(self.ids), UNKNOWN)
        found[self.clip] = self.gold
        return found

    def columns(self) -> dict[str, np.ndarray]:
        """Whether a row counts for each figure that is a share of rows, bool `[N]` each."""
        right, coherent = self.said == self.gold, self.judged == self.gold
        known = (self.said >= 0) & (self.said < self.classes)
        return {
            "war": self.answer == self.gold,
            "eea": coherent,
            "epc": (self.said == self.judged) & known,
            "fcr": right & coherent,
            "right_answer_wrong_reason": right & ~coherent,
            "unknown_rate": self.unknown,
        }

    def quadrant(self) -> np.ndarray:
        """Which of QUADRANTS each row is in `[N]`: is the answer right, does the explanation speak of the true emotion."""
        return 2 * (self.said != self.gold) + (self.judged != self.gold)


def indices(labels: Sequence[str | None], taxonomy: Sequence[str]) -> np.ndarray:
    """Label -> its position in the taxonomy, None -> UNKNOWN; KeyError for a label off the list."""
    position: dict[str | None, int] = {label: i for i, label in enumerate(taxonomy)}
    position[None] = UNKNOWN
    return np.array([position[label] for label in labels], dtype=np.int64)


def recall_parts(table: Table) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What UAR is made of, as 0 or 1 per row and class `[N, C]`: right answers, rows that count, classes that exist.

    UAR = mean over the classes that exist in some row of (sum of right answers) / (sum of rows that count), 0 for 0 / 0. In
    the modes other than "union" every class of the label set exists.
    """
    size = max(table.classes, int(table.answer.max()) + 1) if table.uar == "union" else table.classes
    gold = table.gold[:, None] == np.arange(size)
    right = gold & (table.answer == table.gold)[:, None]
    if table.uar == "union":
        return right, gold, gold | (table.answer[:, None] == np.arange(size))
    counted = gold & ~table.unknown[:, None] if table.uar == "known" else gold
    return right, counted, np.ones_like(gold)


def recalls(gold: np.ndarray, answer: np.ndarray, classes: int) -> np.ndarray:
    """Recall of each class `[E]`, 0 for a class without samples (the fixed label set is the denominator of UAR)."""
    count = np.bincount(gold, minlength=classes)
    right = np.bincount(gold[gold == answer], minlength=classes)
    return right / np.maximum(count, 1)


def scores(table: Table) -> dict[str, float]:
    """The figures of `NAMES`, as fractions.

    WAR = P(answer = gold), UAR = mean recall, EEA = P(judged = gold), EPC = P(answer = judged, both known),
    FCR = P(answer = gold and judged = gold); right_answer_wrong_reason = WAR - FCR.
    """
    right, counted, exists = recall_parts(table)
    recall = right.sum(0) / np.maximum(counted.sum(0), 1)
    found = {name: float(column.mean()) for name, column in table.columns().items()}
    found["uar"] = float(recall[exists.any(0)].mean())
    return {name: found[name] for name in NAMES}


def quadrants(table: Table) -> dict[str, float]:
    """The share of rows in each of QUADRANTS; right_coherent is FCR."""
    share = np.bincount(table.quadrant(), minlength=4) / len(table.gold)
    return {name: float(share[i]) for i, name in enumerate(QUADRANTS)}


def confusion(gold: np.ndarray, answer: np.ndarray, classes: int) -> np.ndarray:
    """Counts `[E, E + 1]`, gold by answer, unknown in the last column."""
    table = np.zeros((classes, classes + 1), dtype=np.int64)
    unknown = (answer < 0) | (answer >= classes)
    np.add.at(table, (gold, np.where(unknown, classes, answer)), 1)
    return table
