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

Cells = dict[str, Any]  # column -> value of a row
SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")
# What data sets call their splits -> what the verifier's training does with each (see erv.verifier.dataset).
SPLITS = {
    "train": "train",
    "training": "train",
    "heldout": "heldout",
    "dev": "heldout",
    "val": "heldout",
    "valid": "heldout",
    "validation": "heldout",
    "audit": "audit",
    "test": "audit",
    "testing": "audit",
    "withheld": "withheld",
}
csv.field_size_limit(1 << 24)  # a cell may hold a whole document; the library's default is 128 KiB


def read_table(
    path: str | Path,
    columns: Sequence[str] | None = None,
    fallback: str | None = None,
) -> Iterator[tuple[str, Cells]]:
    """Yield ("FILE:LINE", {column: value}) for every row that is not blank.

    TSV has no quotes: a tab or a line break cannot be part of a cell, and a quote is a character like any other. NaN, which
    data frames write for missing values, becomes None.

    Args:
        path: CSV, TSV, JSON lines or Parquet, told by its suffix; UTF-8 with or without a byte order mark.
        columns: Column names of a CSV or TSV file without a header line.
        fallback: Encoding of files that are not UTF-8 (default: they are refused).

    Raises:
        ValueError: With file and line, for a file that cannot be read.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        rows = _parquet(path)
    elif suffix == ".jsonl":
        rows = _json_lines(path, _decode(path, fallback))
    elif suffix in SUFFIXES:
        rows = _separated(path, _decode(path, fallback), columns)
    else:
        raise ValueError(f"{path}: a table is a {', '.join(SUFFIXES)} file, got {suffix or 'no suffix'!r}")
    for number, row in rows:
        # NaN is the one value that differs from itself
        yield f"{path}:{number}", {key: None if value != value else value for key, value in row.items()}


def table_files(source: str | Path | Mapping[str, str | Path | None] | None) -> list[tuple[Path, str | None]]:
    """List the files of a source of text, each with the split that its name tells; None if only its rows can tell.

    `source` is a file, {split: file}, or a folder. Of a folder, the files train*, dev*, test*, … and those in folders with
    such names are taken; without any, all tables directly in it. Raises ValueError when there is no file.
    """
    if source is None:
        raise ValueError("no file is given")
    if isinstance(source, Mapping):
        if unknown := [name for name in source if name not in SPLITS]:
            raise ValueError(f"a file for each split is {{{', '.join(SPLITS)}}}: FILE, got {', '.join(unknown)}")
        return [(_require_file(Path(file)), SPLITS[name]) for name, file in source.items() if file]
    path = Path(source)
    if not path.is_dir():
        return [(_require_file(path), None)]
    tables = [file for pattern in ("*", "*/*") for file in sorted(path.glob(pattern)) if file.suffix in SUFFIXES]
    files: list[tuple[Path, str | None]] = [
        (file, split) for file in tables if (split := _split_of(file.relative_to(path).parts[0]))
    ]
    files = files or [(file, None) for file in tables if file.parent == path]
    if not files:
        raise ValueError(f"{path}: no table ({', '.join(SUFFIXES)}) lies in this folder")
    return files


def _require_file(path: Path) -> Path:
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    return path


def _split_of(name: str) -> str | None:
    """The split of a name such as "train.tsv", "train_sent_emo.csv" or "validation-00000-of-00001.parquet"."""
    return SPLITS.get(re.split(r"[^a-z]", name.lower())[0])


def _decode(path: Path, fallback: str | None) -> str:
    """Read a text file as UTF-8, or else in the encoding `fallback`."""
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
    """Yield (line number, row) of a CSV or TSV file; without `columns`, its first line names them."""
    lines = io.StringIO(text, newline="")
    if path.suffix.lower() == ".tsv":
        reader = csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
    else:
        reader = csv.reader(lines, strict=True)  # otherwise an unclosed quote swallows the rest of the file
    number = 1  # line that the next row begins on
    try:
        for cells in reader:
            if cells and columns is None:
                columns = cells
                if repeated := [name for name, count in Counter(cells).items() if count > 1]:
                    raise ValueError(f"{path}:{number}: column {repeated[0]!r} is named twice")
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
    # StringIO breaks lines at \n only; str.splitlines would also break at U+2028, which may stand in a JSON string
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
