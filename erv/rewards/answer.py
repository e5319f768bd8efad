"""R_answer: is the emotion right."""

from __future__ import annotations

from erv.rationale import Rationale
from erv.rewards.parsing import Reading


class AnswerReward:
    """1 when the answer names the gold label, else 0 (paper, R_answer).

    Answer and gold go through the same synonyms by whole words; the released code normalised the answer only, so that some
    golds could never be rewarded (original-defects.md 20).
    """

    name = "answer"

    def __init__(self, weight: float = 1.0) -> None:
        self.weight = weight

    def value(self, rationale: Rationale, gold: str, reading: Reading) -> float | None:
        """The reward of one completion; None when the gold label is unknown, for which no completion is to blame."""
        right = reading.right(rationale.answer, gold)
        return None if right is None else float(right)
