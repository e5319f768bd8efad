"""Texts to label, from the files that rollouts and data sets come in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from erv.rationale import parse, sentences
from erv.utils.sanitize import parse_json
from erv.utils.tables import read_table


@dataclass(frozen=True, slots=True)
class Text:
    """A text, and the id of the clip it was written about, None where the file does not say."""

    text: str
    clip: str | None


def read_texts(
    file: str, field: str = "text", clip: str = "clip", unit: Literal["text", "sentence"] = "text", language: str = "en"
) -> list[Text]:  # fmt: skip
    """The texts of a file, none empty; repeated ones stay.

    JSONL, CSV, TSV and Parquet hold one text a row in column `field`, its clip in column `clip`; JSON is a list of such rows, or
    maps a clip's id to its row (MERR). predictions.jsonl of a run: field=think clip=clip_id; completions.parquet: field=text
    clip=clip_id; EMER: field=reasons clip=names; MERR-fine: field=smp_reason_caption. Of an answer with tags the think text
    is taken. Raises ValueError for a file that is absent, of another kind, or without the column.
    """
    if unit not in ("text", "sentence"):
        raise ValueError(f"task.unit is text or sentence, got {unit!r}")
    path = Path(file)
    if not path.is_file():
        raise ValueError(f"{path}: no such file; set task.input to JSONL, JSON, CSV, TSV or Parquet with the texts")
    found: list[Text] = []
    for place, row in _rows(path, clip):
        if not isinstance(row, Mapping):
            raise ValueError(f"{place}: a row is an object, got a {type(row).__name__}")
        if field not in row:
            raise ValueError(f"{place}: no {field!r}; set task.field to one of {', '.join(map(str, row))}")
        value = row[field]
        if not isinstance(value, str | None):
            raise ValueError(f"{place}: {field!r} is a text, got a {type(value).__name__}")
        text = (parse(value).think or "") if value and "<think>" in value else (value or "").strip()
        owner = row.get(clip)
        pieces = sentences(text, language) if unit == "sentence" else [text]
        found += [Text(piece, None if owner is None else str(owner)) for piece in pieces if piece]
    if not found:
        raise ValueError(f"{path}: {field!r} is empty in every row; set task.field to the column with the texts")
    return found


def _rows(path: Path, clip: str) -> Iterator[tuple[str, Any]]:
    """(Place for messages, row); the rows of JSON need not be objects."""
    if path.suffix.lower() != ".json":
        yield from read_table(path)
        return
    try:
        content = parse_json(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path}: is no JSON ({error})") from error
    if isinstance(content, dict):
        rows = [{clip: id_, **row} if isinstance(row, dict) else row for id_, row in content.items()]
    elif isinstance(content, list):
        rows = content
    else:
        raise ValueError(f"{path}: is a list of rows or maps clips to rows, got a {type(content).__name__}")
    yield from ((f"{path}, row {number}", row) for number, row in enumerate(rows, start=1))
