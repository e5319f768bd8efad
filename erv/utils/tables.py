"""Reading tables of text: CSV, TSV, JSON lines and Parquet, in one file or in a file for each split."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from erv.utils.sanitize import parse_json

Cells = dict[str, Any]
SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")
# What data sets call their splits, and what the verifier's training does with each (see erv.verifier.dataset).
SPLITS = {
    "train": "train", "training": "train",
    "heldout": "heldout", "dev": "heldout", "val": "heldout", "valid": "heldout", "validation": "heldout",
    "audit": "audit", "test": "audit", "testing": "audit",
    "withheld": "withheld",
}  # fmt: skip
csv.field_size_limit(1 << 24)  # a cell may hold a whole document; the default of the library is 128 KiB


def read_table(
    path: str | Path,
    columns: Sequence[str] | None = None,
    fallback: str | None = None,
) -> Iterator[tuple[str, Cells]]:
    """("FILE:LINE", {column: value}) of every row that is not blank.

    The first line of CSV and TSV names the columns, unless `columns` does. TSV has no quotes: a tab or a line break cannot
    be part of a cell, and a quote is a character as any other. Files are UTF-8, with or without a byte order mark, or
    `fallback` where the bytes are no UTF-8. NaN, as data frames write it for what is missing, becomes None. Raises
    ValueError, with file and line, for a file that cannot be read.
    """
    path = Path(path)
    kind = path.suffix.lower()
    if kind == ".parquet":
        rows = _parquet(path)
    elif kind == ".jsonl":
        rows = _json_lines(path, _decoded(path, fallback))
    elif kind in SUFFIXES:
        rows = _separated(path, _decoded(path, fallback), columns)
    else:
        raise ValueError(f"{path}: a table is a {', '.join(SUFFIXES)} file, got {kind or 'no suffix'!r}")
    for number, row in rows:
        yield f"{path}:{number}", {key: None if value != value else value for key, value in row.items()}


def table_files(source: str | Path | Mapping[str, str | Path | None] | None) -> list[tuple[Path, str | None]]:
    """The files of a source of text, each with the split that its place names (None: the rows may).

    `source` is a file, {split: file}, or a folder: its files train*, dev*, test*, … and those in folders of these names;
    without any, all tables in it. Raises ValueError where there is none.
    """
    if source is None:
        raise ValueError("no file is given")
    if isinstance(source, Mapping):
        if unknown := [name for name in source if name not in SPLITS]:
            raise ValueError(f"a file for each split is {{{', '.join(SPLITS)}}}: FILE, got {', '.join(unknown)}")
        return [(_existing(Path(file)), SPLITS[name]) for name, file in source.items() if file]
    path = Path(source)
    if not path.is_dir():
        return [(_existing(path), None)]
    tables = [file for pattern in ("*", "*/*") for file in sorted(path.glob(pattern)) if file.suffix in SUFFIXES]
    named = [(file, split) for file in tables if (split := _split_of(file.relative_to(path).parts[0]))]
    found: list[tuple[Path, str | None]] = [*named] or [(file, None) for file in tables if file.parent == path]
    if not found:
        raise ValueError(f"{path}: no table ({', '.join(SUFFIXES)}) lies in this folder")
    return found


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    return path


def _split_of(name: str) -> str | None:
    """The split that "train.tsv", "train_sent_emo.csv" or "validation-00000-of-00001.parquet" is of."""
    return SPLITS.get(re.split(r"[^a-z]", name.lower())[0])


def _decoded(path: Path, fallback: str | None) -> str:
    content = path.read_bytes()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if fallback:
            return content.decode(fallback, "replace")
        line = content[: error.start].count(b"\n") + 1
        raise ValueError(
            f"{path}:{line}: is not UTF-8 (byte 0x{content[error.start]:02x}); convert it, for example with "
            f"iconv -f cp1252 -t utf-8 {path.name}"
        ) from error


def _separated(path: Path, text: str, columns: Sequence[str] | None) -> Iterator[tuple[int, Cells]]:
    lines = io.StringIO(text, newline="")
    if path.suffix.lower() == ".tsv":
        reader = csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
    else:
        reader = csv.reader(lines, strict=True)  # not strict, an unclosed quote swallows the rest of the file
    number = 1
    try:
        for cells in reader:
            if cells and columns is None:
                columns = cells
                if twice := [name for name, count in Counter(cells).items() if count > 1]:
                    raise ValueError(f"{path}:{number}: column {twice[0]!r} is named twice")
            elif cells and columns is not None:
                if len(cells) > len(columns):
                    raise ValueError(
                        f"{path}:{number}: {len(cells)} cells under {len(columns)} columns ({', '.join(columns)}); a cell "
                        'with a comma stands in quotes: "well, yes"'
                    )
                yield number, {name: cells[i] if i < len(cells) else None for i, name in enumerate(columns)}
            number = reader.line_num + 1
    except csv.Error as error:
        raise ValueError(f"{path}:{number}: is no row of a table ({error}); is a quote left open?") from error


def _json_lines(path: Path, text: str) -> Iterator[tuple[int, Cells]]:
    for number, line in enumerate(io.StringIO(text), start=1):
        if not line.strip():
            continue
        try:
            row = parse_json(line)
        except ValueError as error:
            raise ValueError(f"{path}:{number}: is no JSON ({error})") from error
        if not isinstance(row, dict):
            raise ValueError(f"{path}:{number}: a line is an object, got a {type(row).__name__}")
        yield number, row


def _parquet(path: Path) -> Iterator[tuple[int, Cells]]:
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except ValueError as error:
        raise ValueError(f"{path}: is no Parquet ({error})") from error
    yield from enumerate(table.to_pylist(), start=1)
