"""The text of a completion: parse and compose its <think> and <answer> tags, and split a rationale into sentences."""

from __future__ import annotations

import re
from dataclasses import dataclass

_THINK = re.compile(r"<think>(.*?)</think>", re.DOTALL)
_ANSWER = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)
_TAG = re.compile(r"</?(?:think|answer)>")
_WELL_FORMED = re.compile(r"\s*<think>(.*?)</think>\s*<answer>(.*?)</answer>\s*", re.DOTALL)

_LANGUAGE_CODE = re.compile(r"[A-Za-z]{2,3}([-_]\w+)*")  # ISO 639, and what may follow: zh-CN
_STOPS = ".!?…。！？｡"
# a possible end of a sentence: stops with the quotes and brackets that close after them, or a line end
_BOUNDARY = re.compile(rf"(?P<stops>[{_STOPS}]+)(?P<closing>[\"'”’»」』)）\]*_]*)(?P<gap>\s*)|\n\s*")
_ENCLOSED = re.compile(
    r'"[^"\n]*"|“[^”\n]*”|„[^“”\n]*[“”]|«[^»\n]*»|「[^」\n]*」|『[^』\n]*』|\([^()\n]*\)|（[^（）\n]*）'
)
_EMPHASIS = re.compile(r"(\*\*|__|\*)(?=[^\s*_])(.*?[^\s*_])\1")  # of Markdown
_WORD_CHARACTER = re.compile(r"[^\W_]")
_CJK = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")  # kana, Han characters, Hangul
_CLOSING_QUOTES = frozenset('"”」』')
# the sentence goes on after these; that a stop is one of them puts the boundary after the last stop: （第三次！）。
_CONTINUES = ",;:，、；：" + _STOPS
# before a full stop; an initial is any capital but I, which ends sentences as a pronoun
_ABBREVIATION = re.compile(
    r"\b(?:[A-HJ-Z]|Mr|Mrs|Ms|Dr|Prof|Sgt|Lt|Capt|Col|Gen|Rev|St|Mt|Jr|Sr|vs|[Ee]\.g|[Ii]\.e|[Cc]f|[Aa]pprox|Ph)$"
)
_ABBREVIATION_BEFORE_NUMBER = re.compile(r"\b(?:[Nn]o|[Nn]os|[Ff]ig|[Ff]igs|[Vv]ol|pp?)$")  # "No. 5", but "He said no."
_LIST_NUMBER = re.compile(r"(?:^\W*|[:：]\s*)\d{1,2}$")  # 1. at the beginning of a sentence or after a colon
_CONJUNCTION = re.compile("然后|然後|随后|隨後|接着|接著|并|便|就|的")  # then, and, thereupon, and the particle 的
# a few characters and a verb of speech
_REPORTING_CLAUSE = re.compile("[^，。！？,!?]{0,12}[说說道问問喊叫答嚷吼哭笑语語]")


@dataclass(frozen=True, slots=True)
class Rationale:
    """A parsed completion.

    Attributes:
        think: The text of the first think block, stripped; None if there is none.
        answer: The text of the first answer tag, stripped; None if there is none.
        well_formed: Whether the completion has exactly the required form; see `parse`.
    """

    think: str | None
    answer: str | None
    well_formed: bool


def parse(text: str) -> Rationale:
    """Parse the tags of a completion.

    It is well formed if it has exactly one non-empty think block, then exactly one non-empty answer, and nothing else but white
    space. The released format reward also passes empty and repeated blocks (original-defects.md 21).
    """
    think, answer = _THINK.search(text), _ANSWER.search(text)
    match = _WELL_FORMED.fullmatch(text)
    # `.*?` also matches tags, so their number is checked besides
    well_formed = match is not None and len(_TAG.findall(text)) == 4 and all(group.strip() for group in match.groups())
    return Rationale(
        think.group(1).strip() if think else None, answer.group(1).strip() if answer else None, well_formed
    )


def compose(think: str, answer: str) -> str:
    """Compose the completion that SFT trains on: `<think>…</think>`, a line end, `<answer>…</answer>`."""
    return f"<think>{think}</think>\n<answer>{answer}</answer>"


def sentences(text: str, language: str = "en") -> list[str]:
    """Split `text` into its sentences, none empty, as slices of `text` without the white space around them.

    One set of rules for all languages, so `language` is only checked to be a code of two or three letters (and what may
    follow, as in zh-CN). A sentence ends at a line end and after stops with their closing quotes and brackets, but not

    - inside quotes and parentheses that close on the same line, nor after them where the reporting clause follows,
    - before lower case or a comma: `he said "Why?!" and left`, `well... no`, a line broken in mid-sentence,
    - after an abbreviation, an initial or the number of a list item.
    """
    if not _LANGUAGE_CODE.fullmatch(language):
        raise ValueError(
            f"language is a code of two or three letters, such as en, zh or zh-CN (ISO 639); got {language!r}"
        )
    masked, pieces, start = _mask(text), [], 0
    for boundary in _BOUNDARY.finditer(masked):
        if _ends_sentence(masked, start, boundary):
            pieces.append(text[start : boundary.end()].strip())
            start = boundary.end()
    return [piece for piece in [*pieces, text[start:].strip()] if piece]


def _mask(text: str) -> str:
    """Replace the stops inside quotes and parentheses by commas, except those just before the closing mark.

    The length stays the same, so that positions in the masked text hold in `text`. An opening mark that looks like its closing
    mark (", **) is replaced by NUL, so that the remaining one is known to close.
    """

    def enclosed(match: re.Match[str]) -> str:
        inside = match[0][1:-1].rstrip(_STOPS)
        opening = "\0" if match[0][0] == '"' else match[0][0]
        return opening + re.sub(f"[{_STOPS}]", ",", inside) + match[0][1 + len(inside) :]

    # with an odd number of straight quotes in a line it is unknown which of them belong together: ignore them
    lines = [line if line.count('"') % 2 == 0 else line.replace('"', "\0") for line in text.split("\n")]
    masked = _ENCLOSED.sub(enclosed, "\n".join(lines))
    return _EMPHASIS.sub(lambda match: "\0" * len(match[1]) + match[2] + match[1], masked)


def _ends_sentence(masked: str, start: int, boundary: re.Match[str]) -> bool:
    """Whether the sentence of the masked text that begins at `start` ends at `boundary`, a match of _BOUNDARY."""
    stops, closing, gap = boundary["stops"], boundary["closing"], boundary["gap"]
    word = _WORD_CHARACTER.search(masked, boundary.end())
    if word is None or _WORD_CHARACTER.search(masked, start, boundary.start()) is None:
        return False  # only punctuation on one side
    following, first_letter = masked[boundary.end()], word[0]
    if stops is None:  # a line end without a stop: the line may be broken in mid-sentence
        return not following.islower()
    if "\n" in gap:
        return True
    if first_letter.islower() or following in _CONTINUES:
        return False
    before = masked[start : boundary.start()]
    is_cjk = not stops.isascii() or _CJK.match(first_letter) is not None  # no space needed between sentences
    if not gap and not is_cjk and not (before[-1].islower() and following.isupper()):
        return False  # 3.5, U.S., but not "he left.She stayed"
    if not gap and not closing and not stops.strip("…"):
        return False  # 我……我不知道
    if stops == "." and not closing:
        if _ABBREVIATION.search(before[-12:]) or _LIST_NUMBER.search(before):
            return False
        if first_letter.isdigit() and _ABBREVIATION_BEFORE_NUMBER.search(before[-12:]):
            return False
    return not (is_cjk and _CLOSING_QUOTES.intersection(closing) and _continues(before, masked[boundary.end() :]))


def _continues(before: str, after: str) -> bool:
    """Whether a Chinese sentence continues after a quotation that ends in a stop, as in “你走吧。”她轻声说.

    Chinese has no lower case to tell. A quotation after a colon ends its sentence. One at the beginning of its sentence is
    followed by a reporting clause, which belongs to the sentence, or by another sentence. Any other is within its sentence.

    Args:
        before: The sentence up to the end of the quotation.
        after: The text after the quotation.
    """
    opening = max(before.rfind(mark) for mark in "“「『\0")
    lead = before[: max(opening, 0)].rstrip()
    if _CONJUNCTION.match(after) or (lead and not lead.endswith((":", "："))):
        return True
    return not lead and _REPORTING_CLAUSE.match(after) is not None
