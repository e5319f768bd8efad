"""Files that are the old one or the new one, never a part of either, whatever ends the process or the machine."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_REFUSED = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES)  # full, over its quota, read-only, another user's
TEMPORARY = ".tmp"  # how the name ends of a file that is being written


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A file beside `path` to write into; it takes the place of `path`, and is on the disk, once the block has ended well."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}{TEMPORARY}")
    try:
        yield temporary
        _sync(temporary)
        temporary.replace(path)
        _sync(path.parent)  # the new name, too
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_text(path: Path, text: str) -> None:
    """Write a text durably."""
    with replacing(path) as temporary:
        temporary.write_text(text)


def write_json(path: Path, value: Any) -> None:
    """Write JSON durably."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write JSONL durably, one row a line."""
    write_text(path, "".join(map(json_line, rows)))


def json_line(row: Mapping[str, Any]) -> str:
    """A row of JSONL with its line end; no other character in it ends a line, whoever splits the file."""
    text = json.dumps(row, ensure_ascii=False)
    return text.translate({0x85: "\\u0085", 0x2028: "\\u2028", 0x2029: "\\u2029"}) + "\n"


def refusal(error: BaseException) -> str | None:
    """What the disk refused, if that is behind `error`; libraries hide it at the end of a chain, or in their text."""
    seen: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in seen:
        seen.append(link)
        if isinstance(link, OSError) and link.errno in _REFUSED:
            return f"{os.strerror(link.errno)}{f': {link.filename}' if link.filename else ''}"
        for number in _REFUSED:
            if f"(os error {number})" in str(link):
                return str(link)
        link = link.__cause__ or link.__context__
    return None


def file_sha256(file: str | Path) -> str:
    """The hash of a file's bytes: what a run that reads it is made of, wherever the file lies."""
    with Path(file).open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
