"""An ERV as judge: another one than the policy was trained with, or its reward would mark its own work."""

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
    """The emotion that most of the sentences speak of which speak of any; neutral when none does.

    A sentence counts for its likeliest emotion; among emotions with as many sentences the one with the larger sum of
    probabilities is chosen.
    """

    free = True
    partial = False

    def __init__(self, taxonomy: Taxonomy, verifier: Classifier, name: str = "verifier", language: str = "en") -> None:
        self.name, self.taxonomy, self.verifier, self.language = name, taxonomy, verifier, language
        self._columns = [verifier.labels.index(counterpart(label, verifier.labels)) for label in taxonomy.labels]

    def require(self) -> None:
        """Nothing: its weights are here. That they are not the training verifier's is checked where both are known."""

    def waiting(self, texts: Sequence[str]) -> int:
        """None: it answers at once."""
        return 0

    def cost(self, texts: Sequence[str]) -> None:
        """Nothing."""

    def describe(self) -> dict[str, Any]:
        """A verifier; whose weights, its config says."""
        return {"kind": "verifier"}

    async def read(self, texts: Sequence[str], on_verdict: OnVerdict = lambda: None) -> list[Verdict | None]:
        """One verdict per text."""
        return await asyncio.to_thread(self._read, texts)

    def _read(self, texts: Sequence[str]) -> list[Verdict | None]:
        split = [rationale.sentences(text, self.language) for text in texts]
        found = iter(self.verifier([sentence for sentences in split for sentence in sentences]))
        rows = [np.array([next(found) for _ in sentences]) for sentences in split]
        return [Verdict(self.name, self._emotion_of(row), "ok") for row in rows]

    def _emotion_of(self, probabilities: np.ndarray) -> str:
        """The emotion of a text from the probabilities `[S, E]` of its sentences."""
        if not len(probabilities):
            return self.taxonomy.neutral
        own = probabilities[:, self._columns]
        counts = Counter(self.taxonomy.labels[i] for i in own.argmax(1))
        del counts[self.taxonomy.neutral]
        sums = dict(zip(self.taxonomy.labels, own.sum(0).tolist(), strict=True))
        return max(counts, key=lambda label: (counts[label], sums[label]), default=self.taxonomy.neutral)
