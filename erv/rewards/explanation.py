"""R_E: the share of a rationale's non-neutral sentences in which the verifier finds the gold emotion (paper, reward of GRPO)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np

from erv.rewards.base import Completion
from erv.types import Sentence

Fallback = Literal["argmax", "none"]
Unit = Literal["sentence", "window", "document"]
NeutralGold = Literal["match_all", "match_only", "skip"]
NeutralFilter = Literal["all", "argmax", "margin"]


class ExplanationReward:
    """The explanation reward over the verifier's probabilities.

    A sentence speaks of the emotions with probability above `threshold`, at most the `top_k` likeliest; when none is, of
    the likeliest one (`fallback="argmax"`) or of none.

    `neutral_filter` says which sentences count as neutral and are left out: those whose only emotion is neutral ("all" or
    True, paper), those whose likeliest emotion is neutral ("argmax"), those where neutral's probability is at least
    `neutral_margin` above every other emotion's ("margin"), or none (False). "argmax" and "margin" are for verifiers trained
    on real text, which give a plain description a second emotion above the threshold. A sentence that names the gold emotion
    first always counts.

    `unit` is what the verifier reads: a sentence; a sentence with `context` sentences before and after it ("window");
    or the whole rationale at once ("document"). Every sentence of a window counts once, a document counts as one.

    Where the gold label is neutral the filter would leave nothing to match, so it is off: R_E is the share of all sentences
    that are neutral among other things (`on_neutral_gold="match_all"`, paper), that are neutral and nothing else
    ("match_only"), or there is no R_E for such clips ("skip").
    """

    def __init__(
        self,
        weight: float = 1.0,
        threshold: float = 0.1,
        top_k: int = 2,
        neutral_filter: bool | NeutralFilter = True,
        fallback: Fallback = "argmax",
        unit: Unit = "sentence",
        context: int = 1,
        on_neutral_gold: NeutralGold = "match_all",
        neutral_margin: float = 0.2,
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
        if not isinstance(neutral_filter, bool) and neutral_filter not in get_args(NeutralFilter):
            raise ValueError(
                f"reward.explanation.neutral_filter is true, false or one of {', '.join(get_args(NeutralFilter))}, got "
                f"{neutral_filter!r}"
            )
        if not 0 <= neutral_margin <= 1:
            raise ValueError(
                "reward.explanation.neutral_margin is a difference of probabilities in [0, 1], got "
                f"{neutral_margin}; set 0.2 for the default"
            )
        for key, value, choices in (
            ("fallback", fallback, get_args(Fallback)),
            ("unit", unit, get_args(Unit)),
            ("on_neutral_gold", on_neutral_gold, get_args(NeutralGold)),
        ):
            if value not in choices:
                raise ValueError(f"reward.explanation.{key} is one of {', '.join(choices)}, got {value!r}")
        self.weight, self.threshold, self.top_k = weight, threshold, top_k
        self.neutral_filter: NeutralFilter | Literal[False] = "all" if neutral_filter is True else neutral_filter
        self.neutral_margin, self.on_neutral_gold = neutral_margin, on_neutral_gold
        self.fallback, self.unit, self.context = fallback, unit, context

    def __call__(self, completions: Sequence[Completion]) -> list[float | None]:
        """R_E of each completion; None where the verifier failed or the gold label is unknown."""
        return [
            None
            if c.sentences is None or c.emotion is None
            else self.value([s.emotions for s in c.sentences], c.emotion, c.neutral, [s.filtered for s in c.sentences])
            for c in completions
        ]

    def inputs(self, sentences: Sequence[str]) -> list[str]:
        """The text that the verifier reads for each of `sentences`; with unit "document" they are the whole rationale."""
        if self.unit != "window":
            return list(sentences)
        n = self.context
        return [" ".join(sentences[max(0, i - n) : i + n + 1]) for i in range(len(sentences))]

    def emotions(self, probabilities: np.ndarray, labels: Sequence[str]) -> tuple[str, ...]:
        """The emotions of one sentence from its probabilities `[E]`, likeliest first."""
        import torch  # here, so that settings can be checked without it

        # torch's order of equal probabilities is that of the released code; NumPy's is not
        order = torch.as_tensor(probabilities).topk(min(self.top_k, len(labels))).indices.tolist()
        chosen = [i for i in order if probabilities[i] > self.threshold]
        if not chosen and self.fallback == "argmax":
            chosen = [order[0]]
        return tuple(labels[i] for i in chosen)

    def sentence(
        self,
        text: str,
        probabilities: np.ndarray,
        labels: Sequence[str],
        neutral: str = "neutral",
    ) -> Sentence:
        """The sentence `text` with its emotions and whether the neutral filter leaves it out, from probabilities `[E]`."""
        emotions = self.emotions(probabilities, labels)
        if self.neutral_filter is False or neutral not in labels:
            return Sentence(text, emotions)
        if self.neutral_filter == "all":
            return Sentence(text, emotions, emotions == (neutral,))
        index = labels.index(neutral)
        margin = probabilities[index] - np.delete(probabilities, index).max(initial=0)
        least = self.neutral_margin if self.neutral_filter == "margin" else 0
        return Sentence(text, emotions, bool(margin >= least))

    def value(
        self,
        emotions: Sequence[tuple[str, ...]],
        gold: str,
        neutral: str = "neutral",
        filtered: Sequence[bool] | None = None,
    ) -> float | None:
        """R_E in [0, 1] of one rationale; 0 when no sentence counts, None where `on_neutral_gold` is "skip".

        Args:
            emotions: of each sentence, likeliest first.
            gold: the emotion to look for.
            neutral: the label for no emotion.
            filtered: which sentences the neutral filter leaves out (`sentence` decides it from probabilities). Where only
                emotions are known, as from a judge: those that are neutral and nothing else.
        """
        if gold == neutral and self.on_neutral_gold == "skip":
            return None
        if filtered is None:
            filtered = [self.neutral_filter is not False and labels == (neutral,) for labels in emotions]
        counted = [
            labels
            for labels, left_out in zip(emotions, filtered, strict=True)
            # equal probabilities have no meaningful order, so a sentence that names the gold emotion first always counts
            if not left_out or gold == neutral or labels[:1] == (gold,)
        ]
        alone = gold == neutral and self.on_neutral_gold == "match_only"
        matches = sum(labels == (gold,) if alone else gold in labels for labels in counted)
        return matches / len(counted) if counted else 0.0
