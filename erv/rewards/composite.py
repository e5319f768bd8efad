"""R = R_format + R_answer + R_E, with the parts kept (paper, the reward of GRPO)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import numpy as np

from erv.rationale import Rationale
from erv.rewards.answer import AnswerReward
from erv.rewards.explanation import ExplanationReward
from erv.rewards.format import FormatReward
from erv.rewards.parsing import Fixed, Paper, Preset, Reading
from erv.taxonomy import Taxonomy, counterpart
from erv.types import RewardParts, Sentence

_log = logging.getLogger(__name__)
Verifier = Callable[[Sequence[str]], np.ndarray]


class TotalReward:
    """The weighted sum of the rewards that are given.

    `verifier` turns sentences into probabilities `[S, E]` of `verifier_labels` (default: the taxonomy's labels). It is
    asked once for all sentences of a call. When it fails, the explanation part is None, never 0: a completion is not to
    blame for it.

    `preset` is how texts are read: "fixed", with `erv.rationale.sentences`, or "paper", which repeats the released code,
    where sentences are cut by a rule of its own and `language` has no part.
    """

    def __init__(
        self,
        taxonomy: Taxonomy,
        format: FormatReward | None = None,
        answer: AnswerReward | None = None,
        explanation: ExplanationReward | None = None,
        verifier: Verifier | None = None,
        verifier_labels: Sequence[str] | None = None,
        language: str = "en",
        preset: Preset = "fixed",
    ) -> None:
        if explanation is not None and verifier is None:
            raise ValueError(
                "reward.explanation needs a verifier; set verifier=trained, or reward=format_answer without R_E"
            )
        if preset not in ("fixed", "paper"):
            raise ValueError(f"reward.preset is fixed or paper, got {preset!r}")
        self.taxonomy, self.verifier = taxonomy, verifier
        self.labels = tuple(verifier_labels or taxonomy.labels)
        for label in taxonomy.labels:
            counterpart(label, self.labels)  # a verifier that lacks an emotion of the corpus is refused now
        neutral = taxonomy.neutral
        self.neutral = counterpart(neutral, self.labels) if neutral in taxonomy.labels else neutral
        self.reading: Reading = Paper(taxonomy) if preset == "paper" else Fixed(taxonomy, language)
        self.format, self.answer, self.explanation = format, answer, explanation
        self.weights = {part.name: part.weight for part in (format, answer, explanation) if part is not None}

    def __call__(self, texts: Sequence[str], golds: Sequence[str]) -> list[RewardParts]:
        """The rewards of completions `texts` for clips with labels `golds`."""
        rationales = [self.reading.parse(text) for text in texts]
        found = self.read([r.think or "" for r in rationales])
        rows = zip(rationales, golds, found, strict=True)
        return [self._parts(rationale, gold, read) for rationale, gold, read in rows]

    def read(self, thinks: Sequence[str]) -> list[tuple[Sentence, ...] | None]:
        """The sentences of each text with the verifier's emotions (none without a verifier); None where it failed."""
        reader = self.explanation or ExplanationReward()
        whole = reader.unit == "document"
        split = [([t] if t else []) if whole else self.reading.sentences(t) for t in thinks]
        flat = [text for group in split for text in reader.readable(group)]
        if self.verifier is None or not flat:
            return [tuple(Sentence(s, ()) for s in group) for group in split]
        try:
            probabilities = iter(self._ask(self.verifier, flat))
        except Exception:  # whatever a verifier raises, training must go on without its part
            _log.exception("the verifier failed on %d sentences; their explanation reward is None", len(flat))
            return [None] * len(thinks)
        return [
            tuple(reader.sentence(s, next(probabilities), self.labels, self.neutral) for s in group) for group in split
        ]

    def _ask(self, verifier: Verifier, texts: list[str]) -> np.ndarray:
        found, wanted = np.asarray(verifier(texts)), (len(texts), len(self.labels))
        if found.shape != wanted or not np.isfinite(found).all():
            raise ValueError(
                f"a verifier gives finite probabilities {wanted}, one row a sentence; got shape {found.shape}"
                + ("" if found.shape != wanted else " with values that are no numbers")
            )
        return found

    def _parts(self, rationale: Rationale, gold: str, found: tuple[Sentence, ...] | None) -> RewardParts:
        parts: dict[str, float | None] = {}
        if self.format is not None:
            parts["format"] = self.format.value(rationale)
        if self.answer is not None:
            parts["answer"] = self.answer.value(rationale, gold, self.reading)
        if self.explanation is not None:
            parts["explanation"] = None if found is None else self._explanation(self.explanation, gold, found)
        known = [self.weights[name] * value for name, value in parts.items() if value is not None]
        return RewardParts(sum(known) if known else None, parts, found or ())

    def _explanation(self, part: ExplanationReward, gold: str, found: tuple[Sentence, ...]) -> float | None:
        emotion = self.reading.emotion(gold)
        if emotion is None:
            _log.warning("%r is not a label of taxonomy %r; its rewards are None", gold, self.taxonomy.name)
            return None
        wanted = counterpart(emotion, self.labels)
        return part.value([s.emotions for s in found], wanted, self.neutral, [s.filtered for s in found])
