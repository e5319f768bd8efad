"""R_format: did the answer come in the form SFT taught."""

from __future__ import annotations

from erv.rationale import Rationale


class FormatReward:
    """1 for one think block and one answer in order with nothing around them, else 0 (paper, R_format)."""

    name = "format"

    def __init__(self, weight: float = 1.0) -> None:
        self.weight = weight

    def value(self, rationale: Rationale) -> float:
        """The reward of one completion."""
        return float(rationale.well_formed)
