"""The text of an answer: its tags and its sentences. Pure text."""

from __future__ import annotations

import re
from dataclasses import dataclass

_THINK = re.compile(r"<think>(.*?)</think>", re.DOTALL)
_ANSWER = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)
_TAG = re.compile(r"</?(?:think|answer)>")
_WELL_FORMED = re.compile(r"\s*<think>(.*?)</think>\s*<answer>(.*?)</answer>\s*", re.DOTALL)

_LANGUAGE = re.compile(r"[A-Za-z]{2,3}([-_]\w+)*")
_STOPS = ".!?…。！？｡"
_STOP = re.compile(rf"(?P<marks>[{_STOPS}]+)(?P<closing>[\"'”’»」』)）\]*_]*)(?P<gap>\s*)|\n\s*")
_ENCLOSED = re.compile(
    r'"[^"\n]*"|“[^”\n]*”|„[^“”\n]*[“”]|«[^»\n]*»|「[^」\n]*」|『[^』\n]*』|\([^()\n]*\)|（[^（）\n]*）'
)
_EMPHASIS = re.compile(r"(\*\*|__|\*)(?=[^\s*_])(.*?[^\s*_])\1")
_WORD = re.compile(r"[^\W_]")
_CJK = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")
_QUOTES = frozenset('"”」』')
_CONTINUES = ",;:，、；：" + _STOPS  # after （第三次！） the next stop ends the sentence
_ABBREVIATION = re.compile(
    r"\b(?:[A-HJ-Z]|Mr|Mrs|Ms|Dr|Prof|Sgt|Lt|Capt|Col|Gen|Rev|St|Mt|Jr|Sr|vs|[Ee]\.g|[Ii]\.e|[Cc]f|[Aa]pprox|Ph)$"
)
_BEFORE_NUMBER = re.compile(r"\b(?:[Nn]o|[Nn]os|[Ff]ig|[Ff]igs|[Vv]ol|pp?)$")
_LIST_NUMBER = re.compile(r"(?:^\W*|[:：]\s*)\d{1,2}$")
_CONJUNCTION = re.compile("然后|然後|随后|隨後|接着|接著|并|便|就|的")
_REPORTING = re.compile("[^，。！？,!?]{0,12}[说說道问問喊叫答嚷吼哭笑语語]")


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
    """Split `text` into its sentences, none empty, as slices of `text` without the white space around them.

    One set of rules for all languages, so `language` is only checked to be a code of two or three letters (and what may
    follow, as in zh-CN). A sentence ends at a line end and after stops with their closing quotes and brackets, but not

    - inside quotes and parentheses that close on the same line, nor after them where the reporting clause follows,
    - before lower case or a comma: `he said "Why?!" and left`, `well... no`, a line broken in mid-sentence,
    - after an abbreviation, an initial or the number of a list item.
    """
    if not _LANGUAGE.fullmatch(language):
        raise ValueError(
            f"language is a code of two or three letters, such as en, zh or zh-CN (ISO 639); got {language!r}"
        )
    masked, pieces, start = _mask(text), [], 0
    for stop in _STOP.finditer(masked):
        if _ends_sentence(masked, start, stop):
            pieces.append(text[start : stop.end()].strip())
            start = stop.end()
    return [piece for piece in [*pieces, text[start:].strip()] if piece]


def _mask(text: str) -> str:
    """`text` with as many characters, where the stops within quotes and parentheses are no stops, but for the last ones.

    Opening marks are blanked where the same mark also closes (", **), so that what remains closes.
    """

    def enclosed(match: re.Match[str]) -> str:
        inside = match[0][1:-1].rstrip(_STOPS)
        opening = "\0" if match[0][0] == '"' else match[0][0]
        return opening + re.sub(f"[{_STOPS}]", ",", inside) + match[0][1 + len(inside) :]

    # an odd straight quote in a line leaves open which of them belong together
    lines = [line if line.count('"') % 2 == 0 else line.replace('"', "\0") for line in text.split("\n")]
    masked = _ENCLOSED.sub(enclosed, "\n".join(lines))
    return _EMPHASIS.sub(lambda match: "\0" * len(match[1]) + match[2] + match[1], masked)


def _ends_sentence(text: str, start: int, stop: re.Match[str]) -> bool:
    """Whether the sentence of the masked text that begins at `start` ends with `stop`, a match of _STOP."""
    marks, closing, gap = stop["marks"], stop["closing"], stop["gap"]
    word = _WORD.search(text, stop.end())
    if word is None or _WORD.search(text, start, stop.start()) is None:
        return False  # only punctuation on one side
    following, first = text[stop.end()], word[0]
    if marks is None:  # a line end without a stop: the line may be broken in mid-sentence
        return not following.islower()
    if "\n" in gap:
        return True
    if first.islower() or following in _CONTINUES:
        return False
    before = text[start : stop.start()]
    wide = not marks.isascii() or _CJK.match(first) is not None
    if not gap and not wide and not (before[-1].islower() and following.isupper()):
        return False  # 3.5, U.S., but not "he left.She stayed"
    if not gap and not closing and not marks.strip("…"):
        return False  # 我……我不知道
    if marks == "." and not closing:
        if _ABBREVIATION.search(before[-12:]) or _LIST_NUMBER.search(before):
            return False
        if first.isdigit() and _BEFORE_NUMBER.search(before[-12:]):
            return False
    return not (wide and _QUOTES.intersection(closing) and _goes_on(before, text[stop.end() :]))


def _goes_on(before: str, after: str) -> bool:
    """Whether a sentence goes on after a quotation that ends in a stop, as “你走吧。”她轻声说 does; Chinese has no case to tell.

    `before` holds the quotation. One after a colon ends its sentence; one that begins its sentence is followed either by
    the clause that reports it or by another sentence; any other is a part of its sentence.
    """
    opening = max(before.rfind(mark) for mark in "“「『\0")
    lead = before[: max(opening, 0)].rstrip()
    if _CONJUNCTION.match(after) or (lead and not lead.endswith((":", "："))):
        return True
    return not lead and _REPORTING.match(after) is not None
