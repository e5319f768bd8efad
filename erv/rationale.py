"""The text of an answer: its tags and its sentences. Pure text."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from spacy.language import Language

_THINK = re.compile(r"<think>(.*?)</think>", re.DOTALL)
_ANSWER = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)
_TAG = re.compile(r"</?(?:think|answer)>")
_WELL_FORMED = re.compile(r"\s*<think>(.*?)</think>\s*<answer>(.*?)</answer>\s*", re.DOTALL)
_QUOTES = '"“”„'


@dataclass(frozen=True, slots=True)
class Rationale:
    """What an answer says: the first think block, the first answer (both stripped, None when absent), and its form."""

    think: str | None
    answer: str | None
    well_formed: bool


def parse(text: str) -> Rationale:
    """Take an answer apart.

    `well_formed`: exactly one non-empty think block, then exactly one non-empty answer, and nothing else but white space.
    The released format reward passes empty and repeated blocks (original-defects.md 21); this does not.
    """
    think, answer = _THINK.search(text), _ANSWER.search(text)
    whole = _WELL_FORMED.fullmatch(text)
    well_formed = whole is not None and len(_TAG.findall(text)) == 4 and all(group.strip() for group in whole.groups())
    return Rationale(
        think.group(1).strip() if think else None, answer.group(1).strip() if answer else None, well_formed
    )


def compose(think: str, answer: str) -> str:
    """The text that SFT teaches: `<think>…</think>`, line end, `<answer>…</answer>`."""
    return f"<think>{think}</think>\n<answer>{answer}</answer>"


def sentences(text: str, language: str = "en") -> list[str]:
    """The sentences of `text`, none empty, by spaCy's rule-based sentence splitter.

    A piece that begins in lower case or inside an open quotation belongs to the sentence before it: spaCy ends a
    sentence after `he said "Why?!"` even when it goes on.
    """
    pieces = [span.text.strip() for span in _splitter(language)(text).sents]
    balanced = text.count('"') % 2 == 0
    found: list[str] = []
    for piece in filter(None, pieces):
        inside = balanced and found and found[-1].count('"') % 2 == 1
        if found and (inside or piece.lstrip(_QUOTES)[:1].islower() or not re.search(r"\w", piece)):
            found[-1] += f" {piece}"
        else:
            found.append(piece)
    return found


@functools.cache
def _splitter(language: str) -> Language:
    import spacy

    try:
        nlp = spacy.blank(language)
    except ImportError as error:  # spaCy's word for a language it does not have
        raise ValueError(f"language is a code that spaCy knows, such as en or zh; got {language!r}") from error
    nlp.add_pipe("sentencizer")
    return nlp
