"""R = R_format + R_answer + R_E, with the parts kept (paper, the reward of GRPO)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import numpy as np

from erv.emotions import Taxonomy
from erv.rationale import Rationale, parse, sentences
from erv.records import RewardParts, Sentence
from erv.rewards.answer import AnswerReward
from erv.rewards.explanation import ExplanationReward
from erv.rewards.format import FormatReward

_log = logging.getLogger(__name__)
Verifier = Callable[[Sequence[str]], np.ndarray]


class TotalReward:
    """The weighted sum of the rewards that are given.

    `verifier` turns sentences into probabilities `[S, E]` in the taxonomy's order. It is asked once for all sentences of
    a call. When it fails, the explanation part is None, never 0: a completion is not to blame for it.
    """

    def __init__(
        self,
        taxonomy: Taxonomy,
        format: FormatReward | None = None,
        answer: AnswerReward | None = None,
        explanation: ExplanationReward | None = None,
        verifier: Verifier | None = None,
        language: str = "en",
    ) -> None:
        if explanation is not None and verifier is None:
            raise ValueError(
                "reward.explanation needs a verifier; set verifier=trained, or reward=format_answer without R_E"
            )
        self.taxonomy, self.verifier, self.language = taxonomy, verifier, language
        self.format, self.answer, self.explanation = format, answer, explanation
        self.weights = {part.name: part.weight for part in (format, answer, explanation) if part is not None}

    def __call__(self, texts: Sequence[str], golds: Sequence[str]) -> list[RewardParts]:
        """The rewards of completions `texts` for clips with labels `golds`."""
        rationales = [parse(text) for text in texts]
        found = self.read([r.think or "" for r in rationales])
        rows = zip(rationales, golds, found, strict=True)
        return [self._parts(rationale, gold, read) for rationale, gold, read in rows]

    def read(self, thinks: Sequence[str]) -> list[tuple[Sentence, ...] | None]:
        """The sentences of each text with the verifier's emotions (none without a verifier); None where it failed."""
        whole = self.explanation is not None and self.explanation.unit == "document"
        split = [([t] if t else []) if whole else sentences(t, self.language) for t in thinks]
        flat = [sentence for group in split for sentence in group]
        if self.verifier is None or not flat:
            return [tuple(Sentence(s, ()) for s in group) for group in split]
        try:
            probabilities = iter(np.asarray(self.verifier(flat)))
        except Exception:  # whatever a verifier raises, training must go on without its part
            _log.exception("the verifier failed on %d sentences; their explanation reward is None", len(flat))
            return [None] * len(thinks)
        reader = self.explanation or ExplanationReward()
        labels = self.taxonomy.labels
        return [tuple(Sentence(s, reader.emotions(next(probabilities), labels)) for s in group) for group in split]

    def _parts(self, rationale: Rationale, gold: str, found: tuple[Sentence, ...] | None) -> RewardParts:
        parts: dict[str, float | None] = {}
        if self.format is not None:
            parts["format"] = self.format.value(rationale)
        if self.answer is not None:
            parts["answer"] = self.answer.value(rationale, gold, self.taxonomy)
        if self.explanation is not None:
            label = self.taxonomy.normalise(gold) or gold
            parts["explanation"] = (
                None if found is None
                else self.explanation.value([s.emotions for s in found], label, self.taxonomy.neutral)
            )  # fmt: skip
        known = [self.weights[name] * value for name, value in parts.items() if value is not None]
        return RewardParts(sum(known) if known else None, parts, found or ())
