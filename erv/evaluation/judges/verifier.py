"""An emotional-rationale verifier as judge; not the one whose reward the policy was trained with."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from erv import rationale
from erv.evaluation.judges.base import OnVerdict
from erv.taxonomy import Taxonomy, counterpart
from erv.types import Verdict


class Classifier(Protocol):
    """Sentences -> probabilities `[S, E]` of `labels`."""

    labels: tuple[str, ...]

    def __call__(self, sentences: Sequence[str]) -> np.ndarray:
        """Probabilities `[S, E]`."""


class VerifierJudge:
    """Names the emotion of most sentences, those that are neutral aside; neutral when all are.

    A sentence counts for its likeliest emotion; of emotions with equally many sentences the one with the largest sum of
    probabilities is chosen.
    """

    free = True
    partial = False

    def __init__(self, taxonomy: Taxonomy, verifier: Classifier, name: str = "verifier", language: str = "en") -> None:
        self.name, self.taxonomy, self.verifier, self.language = name, taxonomy, verifier, language
        self._columns = [verifier.labels.index(counterpart(label, verifier.labels)) for label in taxonomy.labels]

    def require(self) -> None:
        """Nothing: its weights are loaded. `erv.runtime.judges` checks that they are not the training verifier's."""

    def pending(self, texts: Sequence[str]) -> int:
        """None: nothing is cached, it answers at once."""
        return 0

    def cost(self, texts: Sequence[str]) -> None:
        """Nothing."""

    def describe(self) -> dict[str, Any]:
        """Its kind; the weights are named in the config."""
        return {"kind": "verifier"}

    async def read(self, texts: Sequence[str], on_verdict: OnVerdict = lambda: None) -> list[Verdict | None]:
        """One verdict per text."""
        return await asyncio.to_thread(self._read, texts)

    def _read(self, texts: Sequence[str]) -> list[Verdict | None]:
        split = [rationale.sentences(text, self.language) for text in texts]
        probabilities = iter(self.verifier([sentence for sentences in split for sentence in sentences]))
        by_text = [np.array([next(probabilities) for _ in sentences]) for sentences in split]
        return [Verdict(self.name, self._emotion_of(rows), "ok") for rows in by_text]

    def _emotion_of(self, probabilities: np.ndarray) -> str:
        """The emotion of a text from the probabilities `[S, E]` of its sentences."""
        if not len(probabilities):
            return self.taxonomy.neutral
        of_labels = probabilities[:, self._columns]
        counts = Counter(self.taxonomy.labels[i] for i in of_labels.argmax(1))
        del counts[self.taxonomy.neutral]
        sums = dict(zip(self.taxonomy.labels, of_labels.sum(0).tolist(), strict=True))
        return max(counts, key=lambda label: (counts[label], sums[label]), default=self.taxonomy.neutral)
