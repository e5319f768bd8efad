"""R_answer: is the emotion right (paper, reward of GRPO)."""

from __future__ import annotations

from collections.abc import Sequence

from erv.rewards.base import Completion


class AnswerReward:
    """1 when the answer names the gold label, else 0; None when the gold label is unknown.

    Answer and gold go through the same synonyms by whole words; the released code normalised the answer only, so that some
    golds could never be rewarded (original-defects.md 20).
    """

    def __init__(self, weight: float = 1.0) -> None:
        self.weight = weight

    def __call__(self, completions: Sequence[Completion]) -> list[float | None]:
        """The reward of each completion."""
        return [None if c.correct is None else float(c.correct) for c in completions]
