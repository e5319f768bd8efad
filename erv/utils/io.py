"""Atomic, durable file writes: after a crash a file has its old or its new content, never a part of either."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

TEMPORARY = ".tmp"  # suffix of a file that is being written
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES)  # full, over quota, read-only, no permission


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary file beside `path` to write to; when the block ends without an exception it replaces `path`.

    The temporary file is in the same folder since only a rename within one file system is atomic. File and folder are flushed
    to the disk: without the first, a power failure can leave the new name with an empty file; without the second, the old name.

    The file gets the permissions of any new file (the umask is obeyed), whatever wrote it: safetensors writes files that only
    their owner can read, and models and caches are shared.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}{TEMPORARY}")
    try:
        temporary.touch()
        mode = temporary.stat().st_mode
        yield temporary
        if temporary.stat().st_mode != mode:
            temporary.chmod(mode)
        _fsync(temporary)
        temporary.replace(path)
        _fsync(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def obey_umask(files: Iterable[Path]) -> None:
    """Give files that a library wrote, readable for their owner only, the permissions of any new file in their folder."""
    for file in files:
        probe = file.with_name(f".{file.name}.{os.getpid()}{TEMPORARY}")
        try:
            probe.touch()
            file.chmod(probe.stat().st_mode)
        finally:
            probe.unlink(missing_ok=True)


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    with replacing(path) as temporary:
        temporary.write_text(text)


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file atomically."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a JSONL file atomically, one row a line."""
    write_text(path, "".join(map(json_line, rows)))


def json_line(row: Mapping[str, Any]) -> str:
    """Encode one row of JSONL, line end included.

    U+0085, U+2028 and U+2029 are escaped: JSON allows them in strings, but `str.splitlines` takes them for line ends.
    """
    text = json.dumps(row, ensure_ascii=False)
    return text.translate({0x85: "\\u0085", 0x2028: "\\u2028", 0x2029: "\\u2029"}) + "\n"


def disk_error(error: BaseException) -> str | None:
    """The disk error (full, read-only, …) that caused `error`, as a text; None if another error did.

    The whole chain of exceptions is searched: libraries raise their own errors from an OSError. Those written in Rust
    (safetensors, tokenizers) only have its number in their message.
    """
    visited: list[BaseException] = []  # chains can be circular
    link: BaseException | None = error
    while link is not None and link not in visited:
        visited.append(link)
        if isinstance(link, OSError) and link.errno in _DISK_ERRORS:
            return f"{os.strerror(link.errno)}{f': {link.filename}' if link.filename else ''}"
        for number in _DISK_ERRORS:
            if f"(os error {number})" in str(link):
                return str(link)
        link = link.__cause__ or link.__context__
    return None


def file_sha256(file: str | Path) -> str:
    """The SHA-256 of a file's content, in hex."""
    with Path(file).open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
