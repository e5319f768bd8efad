"""R_E: the share of a rationale's non-neutral sentences in which the verifier finds the gold emotion (paper)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
import torch

Fallback = Literal["argmax", "none"]
Unit = Literal["sentence", "window", "document"]
NeutralGold = Literal["match_all", "match_only", "skip"]


class ExplanationReward:
    """The explanation reward over the verifier's probabilities.

    A sentence speaks of the emotions with probability above `threshold`, at most the `top_k` likeliest; when none is, of
    the likeliest one (`fallback="argmax"`) or of none. With `neutral_filter` sentences that are neutral and nothing else do
    not count.

    `unit` is what the verifier reads: a sentence; a sentence with `context` sentences before and after it ("window");
    or the whole rationale at once ("document"). Every sentence of a window counts once, a document counts as one.

    Where the gold label is neutral the filter would leave nothing to match, so it is off: R_E is the share of all sentences
    that are neutral among other things (`on_neutral_gold="match_all"`, paper), that are neutral and nothing else
    ("match_only"), or there is no R_E for such clips ("skip").
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
        context: int = 1,
        on_neutral_gold: NeutralGold = "match_all",
    ) -> None:
        if not 0 <= threshold <= 1:
            raise ValueError(f"reward.explanation.threshold is a probability in [0, 1], got {threshold}")
        if top_k < 1:
            raise ValueError(
                f"reward.explanation.top_k is how many emotions a sentence may have, at least 1, got {top_k}"
            )
        if context < 1:
            raise ValueError(
                f"reward.explanation.context is how many sentences a window has on either side, at least 1, got {context}; "
                "set unit=sentence for none"
            )
        for key, value, known in (
            ("fallback", fallback, get_args(Fallback)), ("unit", unit, get_args(Unit)),
            ("on_neutral_gold", on_neutral_gold, get_args(NeutralGold)),
        ):  # fmt: skip
            if value not in known:
                raise ValueError(f"reward.explanation.{key} is one of {', '.join(known)}, got {value!r}")
        self.weight, self.threshold, self.top_k = weight, threshold, top_k
        self.neutral_filter, self.fallback, self.unit, self.context = neutral_filter, fallback, unit, context
        self.on_neutral_gold = on_neutral_gold

    def readable(self, sentences: Sequence[str]) -> list[str]:
        """The text that the verifier reads for each of `sentences`, which are the whole rationale if the unit is that."""
        if self.unit != "window":
            return list(sentences)
        n = self.context
        return [" ".join(sentences[max(0, i - n) : i + n + 1]) for i in range(len(sentences))]

    def emotions(self, probabilities: np.ndarray, labels: Sequence[str]) -> tuple[str, ...]:
        """The emotions of one sentence from its probabilities `[E]`, likeliest first."""
        # torch's order of equal probabilities is that of the released code; NumPy's is not
        order = torch.as_tensor(probabilities).topk(min(self.top_k, len(labels))).indices.tolist()
        chosen = [i for i in order if probabilities[i] > self.threshold]
        if not chosen and self.fallback == "argmax":
            chosen = [order[0]]
        return tuple(labels[i] for i in chosen)

    def value(self, found: Sequence[tuple[str, ...]], gold: str, neutral: str = "neutral") -> float | None:
        """R_E in [0, 1] of a rationale whose sentences speak of `found`; 0 when no sentence counts, None for "skip"."""
        if gold == neutral and self.on_neutral_gold == "skip":
            return None
        alone = gold == neutral and self.on_neutral_gold == "match_only"
        matches = sum(emotions == (gold,) if alone else gold in emotions for emotions in found)
        if self.neutral_filter and gold != neutral:
            counted = sum(emotions != (neutral,) for emotions in found)
        else:
            counted = len(found)
        return matches / counted if counted else 0.0
