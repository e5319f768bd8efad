"""Texts to label, from the files that rollouts and data sets come in."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from erv.rationale import parse, sentences
from erv.untrusted import parse_json


@dataclass(frozen=True, slots=True)
class Text:
    """A text, and the id of the clip it was written about, None where the file does not say."""

    text: str
    clip: str | None


def read_texts(
    file: str, field: str = "text", clip: str = "clip", unit: Literal["text", "sentence"] = "text", language: str = "en"
) -> list[Text]:  # fmt: skip
    """The texts of a file, none empty; repeated ones stay.

    JSONL, CSV and Parquet hold one text a row in column `field`, its clip in column `clip`; JSON is a list of such rows, or
    maps a clip's id to its row (MERR). predictions.jsonl of a run: field=think clip=clip_id; completions.parquet: field=text
    clip=clip_id; EMER: field=reasons clip=names; MERR-fine: field=smp_reason_caption. Of an answer with tags the think text
    is taken. Raises ValueError for a file that is absent, of another kind, or without the column.
    """
    if unit not in ("text", "sentence"):
        raise ValueError(f"task.unit is text or sentence, got {unit!r}")
    path = Path(file)
    if not path.is_file():
        raise ValueError(f"{path}: no such file; set task.input to JSONL, JSON, CSV or Parquet with the texts")
    found: list[Text] = []
    for number, row in enumerate(_rows(path, clip), start=1):
        if not isinstance(row, Mapping):
            raise ValueError(f"{path}, row {number}: a row is an object, got a {type(row).__name__}")
        if field not in row:
            raise ValueError(f"{path}, row {number}: no {field!r}; set task.field to one of {', '.join(map(str, row))}")
        value = row[field]
        if not isinstance(value, str | None):
            raise ValueError(f"{path}, row {number}: {field!r} is a text, got a {type(value).__name__}")
        text = (parse(value).think or "") if value and "<think>" in value else (value or "").strip()
        owner = row.get(clip)
        pieces = sentences(text, language) if unit == "sentence" else [text]
        found += [Text(piece, None if owner is None else str(owner)) for piece in pieces if piece]
    if not found:
        raise ValueError(f"{path}: {field!r} is empty in every row; set task.field to the column with the texts")
    return found


def _parsed(text: str, where: str) -> Any:
    try:
        return parse_json(text)
    except ValueError as error:
        raise ValueError(f"{where}: is no JSON ({error})") from error


def _rows(path: Path, clip: str) -> Iterator[Any]:
    kind = path.suffix.lower()
    if kind == ".jsonl":
        for number, line in enumerate(path.read_text().split("\n"), start=1):
            if line.strip():
                yield _parsed(line, f"{path}:{number}")
    elif kind == ".json":
        found = _parsed(path.read_text(), str(path))
        if isinstance(found, dict):
            yield from ({clip: id_, **row} if isinstance(row, dict) else row for id_, row in found.items())
        elif isinstance(found, list):
            yield from found
        else:
            raise ValueError(f"{path}: is a list of rows or maps clips to rows, got a {type(found).__name__}")
    elif kind == ".csv":
        with path.open(newline="", encoding="utf-8-sig") as lines:
            yield from csv.DictReader(lines)
    elif kind == ".parquet":
        import pyarrow.parquet as pq

        yield from pq.read_table(path).to_pylist()
    else:
        raise ValueError(
            f"{path}: task.input is .jsonl, .json, .csv or .parquet, got {kind or 'a file without an ending'!r}"
        )
