"""The oracle judge of the embedded corpus: it knows the grammar, and nothing of the verifier."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from erv.evaluation.judges.base import OnVerdict
from erv.types import Verdict


class Oracle:
    """The emotion whose phrases dominate in a text; ties go to the one mentioned last, a text without any is neutral.

    `grammar` is the corpus' grammar.json: {"phrases": {emotion: [phrase, …]}}. Whole words, any case; where two phrases
    overlap the longer counts. All its verdicts are "ok", since a grammar cannot fail.
    """

    free = True
    partial = False

    def __init__(self, grammar: str, name: str = "oracle") -> None:
        self.name, self.grammar = name, grammar
        phrases = json.loads(Path(grammar).read_text())["phrases"]
        self._emotion = {phrase.lower(): emotion for emotion, listed in phrases.items() for phrase in listed}
        longest_first = sorted(self._emotion, key=len, reverse=True)
        self._pattern = re.compile(r"\b(?:" + "|".join(map(re.escape, longest_first)) + r")\b", re.IGNORECASE)

    def require(self) -> None:
        """Nothing: the grammar was read."""

    def waiting(self, texts: Sequence[str]) -> int:
        """None: it answers at once."""
        return 0

    def cost(self, texts: Sequence[str]) -> None:
        """Nothing."""

    def describe(self) -> dict[str, Any]:
        """A grammar."""
        return {"kind": "oracle"}

    async def read(self, texts: Sequence[str], on_verdict: OnVerdict = lambda: None) -> list[Verdict | None]:
        """One verdict per text."""
        return [Verdict(self.name, self._emotion_of(text), "ok") for text in texts]

    def _emotion_of(self, text: str) -> str:
        found = [self._emotion[match.group().lower()] for match in self._pattern.finditer(text)]
        counts = Counter(found)
        most = max(counts.values(), default=0)
        return next((emotion for emotion in reversed(found) if counts[emotion] == most), "neutral")
