"""R_E: the share of a rationale's non-neutral sentences in which the verifier finds the gold emotion (paper)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

Fallback = Literal["argmax", "none"]
Unit = Literal["sentence", "document"]


class ExplanationReward:
    """The explanation reward over the verifier's probabilities.

    A sentence speaks of the emotions with probability above `threshold`, at most the `top_k` likeliest; when none is, of
    the likeliest one (`fallback="argmax"`) or of none. With `neutral_filter` sentences that are neutral and nothing else do
    not count, unless the gold label itself is neutral. `unit="document"` takes the whole rationale as one sentence.
    """

    name = "explanation"

    def __init__(
        self,
        weight: float = 1.0,
        threshold: float = 0.1,
        top_k: int = 2,
        neutral_filter: bool = True,
        fallback: Fallback = "argmax",
        unit: Unit = "sentence",
    ) -> None:
        if not 0 <= threshold <= 1:
            raise ValueError(f"reward.explanation.threshold is a probability in [0, 1], got {threshold}")
        if top_k < 1:
            raise ValueError(
                f"reward.explanation.top_k is how many emotions a sentence may have, at least 1, got {top_k}"
            )
        if fallback not in ("argmax", "none") or unit not in ("sentence", "document"):
            raise ValueError(f"fallback is argmax or none, unit is sentence or document; got {fallback!r}, {unit!r}")
        self.weight, self.threshold, self.top_k = weight, threshold, top_k
        self.neutral_filter, self.fallback, self.unit = neutral_filter, fallback, unit

    def emotions(self, probabilities: np.ndarray, labels: Sequence[str]) -> tuple[str, ...]:
        """The emotions of one sentence from its probabilities `[E]`, likeliest first."""
        order = np.argsort(-probabilities, kind="stable")
        chosen = [i for i in order[: self.top_k] if probabilities[i] > self.threshold]
        if not chosen and self.fallback == "argmax":
            chosen = [order[0]]
        return tuple(labels[i] for i in chosen)

    def value(self, found: Sequence[tuple[str, ...]], gold: str, neutral: str = "neutral") -> float:
        """R_E in [0, 1] of a rationale whose sentences speak of `found`; 0 when no sentence counts."""
        matches = sum(gold in emotions for emotions in found)
        if self.neutral_filter and gold != neutral:
            counted = sum(emotions != (neutral,) for emotions in found)
        else:
            counted = len(found)
        return matches / counted if counted else 0.0
