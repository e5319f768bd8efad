"""Texts to label, from the files of rollouts and data sets."""

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
    """A text to label."""

    text: str
    clip: str | None  # id of the clip it was written about; None where the file does not say


def read_texts(
    file: str,
    field: str = "text",
    clip: str = "clip",
    unit: Literal["text", "sentence"] = "text",
    language: str = "en",
) -> list[Text]:
    """Read the texts of a file; empty ones are left out, repeated ones are not.

    JSONL, CSV, TSV and Parquet have a text per row. JSON is a list of such rows, or maps a clip's id to its row (MERR). Of
    an answer with tags, the text between the think tags is taken.

        predictions.jsonl of a run: field=think clip=clip_id     EMER: field=reasons clip=names
        completions.parquet: field=text clip=clip_id             MERR-fine: field=smp_reason_caption

    Args:
        file: Path of the file.
        field: Column of the text.
        clip: Column of the clip's id.
        unit: "text" takes each text as a whole, "sentence" splits it into sentences.
        language: ISO 639-1 code of the texts, for the splitting.

    Raises:
        ValueError: For a file that is absent, of another kind, without the column, or without any text in it.
    """
    if unit not in ("text", "sentence"):
        raise ValueError(f"task.unit is text or sentence, got {unit!r}")
    path = Path(file)
    if not path.is_file():
        raise ValueError(f"{path}: no such file; set task.input to JSONL, JSON, CSV, TSV or Parquet with the texts")
    texts: list[Text] = []
    for location, row in _rows(path, clip):
        if not isinstance(row, Mapping):
            raise ValueError(f"{location}: a row is an object, got a {type(row).__name__}")
        if field not in row:
            raise ValueError(f"{location}: no {field!r}; set task.field to one of {', '.join(map(str, row))}")
        value = row[field]
        if not isinstance(value, str | None):
            raise ValueError(f"{location}: {field!r} is a text, got a {type(value).__name__}")
        text = (parse(value).think or "") if value and "<think>" in value else (value or "").strip()
        clip_id = row.get(clip)
        pieces = sentences(text, language) if unit == "sentence" else [text]
        texts += [Text(piece, None if clip_id is None else str(clip_id)) for piece in pieces if piece]
    if not texts:
        raise ValueError(f"{path}: {field!r} is empty in every row; set task.field to the column with the texts")
    return texts


def _rows(path: Path, clip: str) -> Iterator[tuple[str, Any]]:
    """Yield (location for messages, row); the rows of a JSON file may be of any type."""
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
