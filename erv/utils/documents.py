"""Read JSON and YAML files that somebody else may have written, within limits of size and depth, and of the kind needed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from erv.utils.sanitize import parse_json

MAX_BYTES = 64 << 20  # of a file that is read as a whole
MAX_LINE = 16 << 20  # bytes of a line of JSONL
MAX_VALUES = 1_000_000  # lists and mappings in a file, each counted as often as aliases repeat it
MAX_DEPTH = 64  # of lists and mappings in each other; a config of ERV has 8
_KINDS: dict[type, str] = {dict: "a mapping", list: "a list"}
# A C parser is ten times faster, where libyaml was compiled in. Both build plain values only.
_YAML = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class DocumentError(ValueError):
    """A file that cannot be read as what it should be; the message names the file and the reason."""


def read_json(file: Path, kind: type = dict) -> Any:
    """Read a JSON file whose outermost value is of `kind` (dict or list); DocumentError for anything else."""
    text = _read_text(file)
    try:
        value = parse_json(text)
    except ValueError as error:
        raise DocumentError(f"{file}: is no JSON ({error})") from error
    return _checked(file, value, kind)


def read_yaml(file: Path, kind: type = dict) -> Any:
    """Read a YAML file as plain values; the same errors as `read_json`.

    A few lines of aliases of aliases can stand for billions of values, which whoever walks through them would meet one by one:
    what aliases (`*name`) repeat counts towards MAX_VALUES.
    """
    text = _read_text(file)
    try:
        depth = 0
        for event in yaml.parse(text, Loader=_YAML):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > MAX_DEPTH:
                raise DocumentError(f"{file}: is nested more than {MAX_DEPTH} deep")
        value = yaml.load(text, _YAML)  # noqa: S506 - both loaders are safe
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date or a number that Python has no value for
        if isinstance(error, DocumentError):
            raise
        raise DocumentError(f"{file}: is no YAML ({' '.join(str(error).split())})") from error
    return _checked(file, value, kind)


def read_json_lines(file: Path) -> Iterator[dict[str, Any]]:
    """Yield the objects of a JSONL file one by one, in the memory of one; DocumentError with the line for anything else."""
    try:
        with file.open("rb") as lines:
            number = 0
            while line := lines.readline(MAX_LINE + 1):
                number += 1
                if len(line) > MAX_LINE:
                    raise DocumentError(f"{file}:{number}: a line has at most {MAX_LINE >> 20} MB")
                if line.strip():
                    yield _object(line, f"{file}:{number}")
    except OSError as error:
        raise DocumentError(f"{file}: cannot be read ({error.strerror})") from error


def _object(line: bytes, where: str) -> dict[str, Any]:
    try:
        row = parse_json(line.decode("utf-8-sig"))
    except ValueError as error:
        raise DocumentError(f"{where}: is no JSON ({error})") from error
    if not isinstance(row, dict):
        raise DocumentError(f"{where}: a line is an object, got a {type(row).__name__}")
    return row


def _read_text(file: Path) -> str:
    """The text of a regular file of at most MAX_BYTES."""
    if not file.is_file():  # opening a pipe would wait for ever
        raise DocumentError(f"{file}: is no file")
    try:
        with file.open("rb") as stream:
            content = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise DocumentError(f"{file}: cannot be read ({error.strerror})") from error
    if len(content) > MAX_BYTES:
        raise DocumentError(f"{file}: has more than the {MAX_BYTES >> 20} MB that are read")
    if not content.strip():
        raise DocumentError(f"{file}: is empty")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DocumentError(f"{file}: is no text (byte 0x{content[error.start]:02x} is not UTF-8)") from error


def _checked(file: Path, value: Any, kind: type) -> Any:
    if not isinstance(value, kind):
        raise DocumentError(f"{file}: holds {_KINDS.get(type(value), 'a ' + type(value).__name__)}, not {_KINDS[kind]}")
    level: list[Any] = [value]
    depth = count = 0
    while level:  # breadth first: recursion would fail on just what is looked for
        depth += 1
        count += len(level)
        if depth > MAX_DEPTH:
            raise DocumentError(f"{file}: is nested more than {MAX_DEPTH} deep")
        if count > MAX_VALUES:
            raise DocumentError(f"{file}: holds more than {MAX_VALUES:,} lists and mappings")
        level = [
            child
            for node in level
            for child in (node.values() if isinstance(node, dict) else node)
            if isinstance(child, dict | list)
        ]
    return value
