"""R = R_format + R_answer + R_E and terms of the user's own, with the parts kept (paper, reward of GRPO)."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from erv.rewards.answer import AnswerReward
from erv.rewards.base import Completion, Reward
from erv.rewards.explanation import ExplanationReward
from erv.rewards.format import FormatReward
from erv.rewards.parsing import CorrectedParser, Parser, Preset, ReleasedParser
from erv.taxonomy import Taxonomy, counterpart
from erv.types import Clip, RewardParts, Sentence

_log = logging.getLogger(__name__)
Verifier = Callable[[Sequence[str]], np.ndarray]
"""Sentences -> probabilities `[S, E]`."""


class CompositeReward:
    """The weighted sum of rewards.

    Args:
        taxonomy: label set of the data set.
        format, answer, explanation: the paper's three terms; None leaves one out.
        terms: further terms by name, the name under which each is logged.
        verifier: gives the probabilities of `verifier_labels` for sentences. It is asked once for all sentences of a call.
        verifier_labels: labels of the verifier; default: the taxonomy's.
        language: of the rationales, for splitting them into sentences.
        preset: how texts are parsed. "fixed": `erv.rationale`. "paper": as the released code does, where sentences are split by
            a rule of its own that knows no language.
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
        terms: Mapping[str, Reward] | None = None,
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
            counterpart(label, self.labels)  # raises for a verifier that lacks an emotion of the data set
        neutral = taxonomy.neutral
        self.neutral = counterpart(neutral, self.labels) if neutral in taxonomy.labels else neutral
        self.parser: Parser = ReleasedParser(taxonomy) if preset == "paper" else CorrectedParser(taxonomy, language)
        self.explanation = explanation
        builtin = {"format": format, "answer": answer, "explanation": explanation}
        self.terms: dict[str, Reward] = {name: term for name, term in builtin.items() if term is not None}
        for name, term in (terms or {}).items():
            _check_term(name, term, builtin)
            self.terms[name] = term
        self.weights = {name: float(term.weight) for name, term in self.terms.items()}
        # which emotion a rationale should speak of is asked only where a term may need it: the released rules refuse some labels
        self._needs_emotion = explanation is not None or bool(terms)

    def __call__(
        self,
        texts: Sequence[str],
        golds: Sequence[str],
        clips: Sequence[Clip] | None = None,
        tokens: Sequence[int | None] | None = None,
    ) -> list[RewardParts]:
        """The rewards of completions.

        Args:
            texts: decoded completions.
            golds: label of the clip of each.
            clips, tokens: the clip and the length of each, for terms that ask for them.
        """
        completions = self.completions(texts, golds, clips, tokens)
        values = {name: self._values(name, term, completions) for name, term in self.terms.items()}
        rows = []
        for i, completion in enumerate(completions):
            parts = {name: column[i] for name, column in values.items()}
            weighted = [self.weights[name] * value for name, value in parts.items() if value is not None]
            rows.append(RewardParts(sum(weighted) if weighted else None, parts, completion.sentences or ()))
        return rows

    def completions(
        self,
        texts: Sequence[str],
        golds: Sequence[str],
        clips: Sequence[Clip] | None = None,
        tokens: Sequence[int | None] | None = None,
    ) -> list[Completion]:
        """Completions as the terms see them: parsed, split into sentences, and read by the verifier."""
        rationales = [self.parser.parse(text) for text in texts]
        sentences = self.read([r.think or "" for r in rationales])
        return [
            Completion(
                text=text,
                rationale=rationale,
                gold=gold,
                correct=self.parser.is_correct(rationale.answer, gold),
                emotion=self._emotion(gold) if self._needs_emotion else None,
                neutral=self.neutral,
                sentences=read,
                clip=clips[i] if clips is not None else None,
                tokens=tokens[i] if tokens is not None else None,
            )
            for i, (text, rationale, gold, read) in enumerate(zip(texts, rationales, golds, sentences, strict=True))
        ]

    def read(self, thinks: Sequence[str]) -> list[tuple[Sentence, ...] | None]:
        """The sentences of each rationale with the emotions that the verifier finds.

        Without a verifier sentences have no emotions. Where the verifier fails, the entry is None: training goes on with the
        other terms, and no completion is punished for a failure that is not its own.
        """
        settings = self.explanation or ExplanationReward()
        if settings.unit == "document":
            split = [[think] if think else [] for think in thinks]
        else:
            split = [self.parser.sentences(think) for think in thinks]
        inputs = [text for sentences in split for text in settings.inputs(sentences)]
        if self.verifier is None or not inputs:
            return [tuple(Sentence(text, ()) for text in sentences) for sentences in split]
        try:
            probabilities = iter(self._probabilities(self.verifier, inputs))
        except Exception:  # any error of a verifier, which may be a remote service or code of the user's own
            _log.exception("the verifier failed on %d sentences; their explanation reward is None", len(inputs))
            return [None] * len(thinks)
        return [
            tuple(settings.sentence(text, next(probabilities), self.labels, self.neutral) for text in sentences)
            for sentences in split
        ]

    def _probabilities(self, verifier: Verifier, texts: list[str]) -> np.ndarray:
        probabilities, shape = np.asarray(verifier(texts)), (len(texts), len(self.labels))
        if probabilities.shape != shape or not np.isfinite(probabilities).all():
            raise ValueError(
                f"a verifier gives finite probabilities {shape}, one row a sentence; got shape {probabilities.shape}"
                + ("" if probabilities.shape != shape else " with values that are no numbers")
            )
        return probabilities

    def _emotion(self, gold: str) -> str | None:
        """The gold label among the verifier's labels."""
        emotion = self.parser.emotion(gold)
        if emotion is None:
            _log.warning("%r is not a label of taxonomy %r; its rewards are None", gold, self.taxonomy.name)
            return None
        return counterpart(emotion, self.labels)

    def _values(self, name: str, term: Reward, completions: Sequence[Completion]) -> list[float | None]:
        values = list(term(completions))
        if len(values) != len(completions):
            raise ValueError(
                f"reward.terms.{name} gives one value a completion, got {len(values)} for {len(completions)} completions"
            )
        for value in values:
            if value is not None and not math.isfinite(value):
                raise ValueError(
                    f"reward.terms.{name} gives numbers, or None where it cannot be computed; got {value!r}"
                )
        return [None if value is None else float(value) for value in values]


def _check_term(name: str, term: object, builtin: Mapping[str, object]) -> None:
    if name in builtin:
        raise ValueError(f"reward.terms.{name}: this name is taken by reward.{name}; choose another")
    if not callable(term) or not isinstance(getattr(term, "weight", None), int | float):
        raise ValueError(
            f"reward.terms.{name} is a reward: an object with a number `weight` that is called with completions "
            f"(erv.rewards.base.Reward); got {type(term).__name__}"
        )
