"""The judge of the embedded synthetic corpus: it matches the phrases of the grammar that the corpus was generated with."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from erv.evaluation.judges.base import OnVerdict
from erv.types import Verdict


class OracleJudge:
    """Names the emotion with most phrases in a text; of several the one mentioned last, and neutral for a text without any.

    `grammar` is the corpus' grammar.json: {"phrases": {emotion: [phrase, …]}}. Whole words, any case; where two phrases
    overlap the longer counts. All its verdicts are "ok".
    """

    free = True
    partial = False

    def __init__(self, grammar: str, name: str = "oracle") -> None:
        self.name, self.grammar = name, grammar
        phrases = json.loads(Path(grammar).read_text())["phrases"]
        self._emotion_of_phrase = {
            phrase.lower(): emotion for emotion, of_emotion in phrases.items() for phrase in of_emotion
        }
        longest_first = sorted(self._emotion_of_phrase, key=len, reverse=True)
        self._pattern = re.compile(r"\b(?:" + "|".join(map(re.escape, longest_first)) + r")\b", re.IGNORECASE)

    def require(self) -> None:
        """Nothing: the grammar was read by the constructor."""

    def pending(self, texts: Sequence[str]) -> int:
        """None: nothing is cached, it answers at once."""
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
        mentioned = [self._emotion_of_phrase[match.group().lower()] for match in self._pattern.finditer(text)]
        counts = Counter(mentioned)
        highest = max(counts.values(), default=0)
        return next((emotion for emotion in reversed(mentioned) if counts[emotion] == highest), "neutral")
