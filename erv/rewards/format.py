"""R_format: does the completion have the form that SFT taught (paper, reward of GRPO)."""

from __future__ import annotations

from collections.abc import Sequence

from erv.rewards.base import Completion


class FormatReward:
    """1 for one think block and one answer in this order with nothing around them, else 0."""

    def __init__(self, weight: float = 1.0) -> None:
        self.weight = weight

    def __call__(self, completions: Sequence[Completion]) -> list[float | None]:
        """The reward of each completion."""
        return [float(c.rationale.well_formed) for c in completions]
