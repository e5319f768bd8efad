"""Score sentence splitters on the gold lists in tests/fixtures and write table.md beside this file.

    PYTHONPATH=. python experiments/sentences/compare.py

A splitter whose package is missing is left out. pysbd is no dependency of ERV: `pip install --target FOLDER pysbd`, then
run with `PYTHONPATH=.:FOLDER`.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import re
import sys
import time
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path
from typing import Any

from erv import rationale

FOLDER = Path(__file__).parent
FIXTURES = FOLDER.parents[1] / "tests" / "fixtures"
LISTS = {
    "gold": "sentences.jsonl",
    "held out": "sentences_heldout.jsonl",
    "independent": "sentences_independent.jsonl",
}
REPEATS = 5  # the shortest of as many runs over the list is the time
Splitter = Callable[[str, str], list[str]]


@functools.cache
def _pipeline(language: str) -> Any:
    import spacy

    nlp = spacy.blank(language)
    nlp.add_pipe("sentencizer")
    return nlp


def sentencizer(text: str, language: str) -> list[str]:
    """spaCy's rule-based sentencizer alone."""
    return [piece for span in _pipeline(language)(text).sents if (piece := span.text.strip())]


def before(text: str, language: str) -> list[str]:
    """What `erv.rationale.sentences` did: the sentencizer, then pieces in lower case or an open quotation joined."""
    balanced = text.count('"') % 2 == 0
    joined: list[str] = []
    for piece in sentencizer(text, language):
        inside = balanced and joined and joined[-1].count('"') % 2 == 1
        if joined and (inside or piece.lstrip('"“”„')[:1].islower() or not re.search(r"\w", piece)):
            joined[-1] += f" {piece}"
        else:
            joined.append(piece)
    return joined


@functools.cache
def _segmenter(language: str) -> Any:
    import pysbd

    return pysbd.Segmenter(language=language, clean=False)


def pysbd(text: str, language: str) -> list[str]:
    """The rules of pysbd (Pragmatic Segmenter in Python)."""
    return [piece for raw in _segmenter(language).segment(text) if (piece := raw.strip())]


SPLITTERS: dict[str, tuple[str | None, Splitter]] = {
    "before (spaCy sentencizer, merged)": ("spacy", before),
    "spaCy sentencizer": ("spacy", sentencizer),
    "pysbd": ("pysbd", pysbd),
    "erv.rationale.sentences": (None, rationale.sentences),
}


def boundaries(pieces: list[str]) -> set[int]:
    """Where sentences end, in characters other than white space; the end of the text, always right, is left out."""
    return set(list(accumulate(len("".join(piece.split())) for piece in pieces))[:-1])


def score(splitter: Splitter, rows: list[dict]) -> tuple[float, float, float, float, float]:
    """Precision, recall and F1 of boundaries, the share of texts split exactly, milliseconds a text."""
    hits = split = wanted = exact = 0
    for row in rows:
        pieces = splitter(row["text"], row["language"])
        ours, right = boundaries(pieces), boundaries(row["sentences"])
        hits, split, wanted = hits + len(ours & right), split + len(ours), wanted + len(right)
        # white space within a sentence is no matter of splitting
        exact += [piece.split() for piece in pieces] == [piece.split() for piece in row["sentences"]]
    seconds = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        for row in rows:
            splitter(row["text"], row["language"])
        seconds.append(time.perf_counter() - start)
    milliseconds = 1000 * min(seconds) / len(rows)
    return hits / max(split, 1), hits / wanted, 2 * hits / (split + wanted), exact / len(rows), milliseconds


def _read(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def main() -> None:
    """Write the table; splitters whose package is missing are told on standard error."""
    rows = {
        (title, language): [row for row in _read(FIXTURES / name) if row["language"] == language]
        for title, name in LISTS.items()
        for language in ("en", "zh")
    }
    lines = [
        "| splitter | list | language | texts | precision | recall | F1 | exact texts | ms a text |",
        "|---|---|---|--:|--:|--:|--:|--:|--:|",
    ]
    for name, (package, splitter) in SPLITTERS.items():
        if package and importlib.util.find_spec(package) is None:
            how = f"pip install --target FOLDER {package}, then run again with PYTHONPATH=.:FOLDER"
            print(f"{name} is left out: {how}", file=sys.stderr)
            continue
        for (title, language), texts in rows.items():
            *shares, milliseconds = score(splitter, texts)
            figures = " | ".join(f"{100 * share:.1f}" for share in shares)
            lines.append(f"| {name} | {title} | {language} | {len(texts)} | {figures} | {milliseconds:.3f} |")
    table = "\n".join(lines) + "\n"
    (FOLDER / "table.md").write_text(table, encoding="utf-8")
    print(table, end="")


if __name__ == "__main__":
    main()
