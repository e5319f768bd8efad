"""Parsing of completions and gold labels for the rewards: corrected rules, or the released code's with their defects."""

from __future__ import annotations

import re
from typing import Literal, Protocol

from erv import rationale
from erv.rationale import Rationale
from erv.rewards.legacy import RULES, released_mafw
from erv.taxonomy import MAFW, Taxonomy

Preset = Literal["fixed", "paper"]


class Parser(Protocol):
    """Parses completions and gold labels."""

    def parse(self, text: str) -> Rationale:
        """The parts of an answer, and whether its form is right."""

    def sentences(self, think: str) -> list[str]:
        """The sentences of a think text, none empty."""

    def is_correct(self, answer: str | None, gold: str) -> bool | None:
        """Whether an answer names the gold label; None when the gold label itself is unknown."""

    def emotion(self, gold: str) -> str | None:
        """The emotion a rationale should speak of; None when the gold label is unknown."""


class CorrectedParser:
    """Preset "fixed": answer and gold through the same synonyms by whole words, exactly one block of each kind."""

    def __init__(self, taxonomy: Taxonomy, language: str = "en") -> None:
        self.taxonomy, self.language = taxonomy, language
        rationale.sentences("", language)  # raises for an invalid language before training begins

    def parse(self, text: str) -> Rationale:
        """See `erv.rationale.parse`."""
        return rationale.parse(text)

    def sentences(self, think: str) -> list[str]:
        """See `erv.rationale.sentences`."""
        return rationale.sentences(think, self.language)

    def is_correct(self, answer: str | None, gold: str) -> bool | None:
        """Compare as labels of the taxonomy."""
        emotion = self.emotion(gold)
        return None if emotion is None else self.taxonomy.normalise(answer) == emotion

    def emotion(self, gold: str) -> str | None:
        """The taxonomy's label, with or without the answer's tags around it."""
        return self.taxonomy.normalise(rationale.parse(gold).answer or gold)


_THINK = re.compile(r"<think>(.*?)</think>", re.DOTALL)
_ANSWER = re.compile(r"<answer>(.*?)</answer>")  # one line only, as released
_FORM = re.compile(r"<think>.*?</think>\s*<answer>.*?</answer>", re.DOTALL)
_GAP = re.compile(r"(?<=[.!?])\s+")


class ReleasedParser:
    """Preset "paper": the released code's rules, to repeat its numbers (policy.md 8; defects: original-defects.md 19 to 21).

    The answer is normalised by the rule of the data set, the gold label it is compared with is not; the emotion of the gold
    label follows MAFW's rule for both data sets.
    """

    def __init__(self, taxonomy: Taxonomy) -> None:
        self.normalise = RULES.get(taxonomy.name, str)

    def parse(self, text: str) -> Rationale:
        """The first think block; the first answer on one line, or else the whole text; empty blocks pass."""
        think = _THINK.search(text)
        return Rationale(think.group(1).strip() if think else None, _answer(text), _FORM.fullmatch(text) is not None)

    def sentences(self, think: str) -> list[str]:
        """Cut at white space after . ! or ? where an even number of double quotes follows."""
        pieces, start = [], 0
        for gap in _GAP.finditer(think):
            if think.count('"', gap.end()) % 2 == 0:
                pieces.append(think[start : gap.start()])
                start = gap.end()
        return [piece for piece in (part.strip() for part in (*pieces, think[start:])) if piece]

    def is_correct(self, answer: str | None, gold: str) -> bool:
        """The normalised answer against the gold label as it stands."""
        return self.normalise(answer or "") == _answer(gold)

    def emotion(self, gold: str) -> str:
        """A label of MAFW; ValueError for any other gold label, where the released code stops with a KeyError."""
        label = released_mafw(_answer(gold))
        if label not in MAFW.labels:
            raise ValueError(
                f"reward.preset=paper knows the gold labels of DFEW and MAFW ({', '.join(MAFW.labels)}), got {gold!r}; "
                "correct the label, or set reward.preset=fixed"
            )
        return label


def _answer(text: str) -> str:
    match = _ANSWER.search(text)
    return (match.group(1) if match else text).strip()
