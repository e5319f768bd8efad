"""What comes from elsewhere (corpora, models, servers) as it may be parsed and shown. SECURITY.md says what is trusted."""

from __future__ import annotations

import json
import logging
import re
from typing import Any

_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet would run when the file is opened
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def parse_json(text: str) -> Any:
    """The value of a JSON text; ValueError for what is none, however it is made."""
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("is nested too deeply") from error


def visible(text: str) -> str:
    """`text` for a terminal: what would move its cursor, colour it or turn its direction is shown as an escape."""
    return _CONTROL.sub(lambda found: found.group().encode("unicode_escape").decode(), text)


def cell(value: Any) -> Any:
    """`value` for a CSV file that a spreadsheet opens: a text that it would take for a formula is marked as text."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


class VisibleFormatter(logging.Formatter):
    """Log lines whose values may come from elsewhere."""

    def format(self, record: logging.LogRecord) -> str:
        """A line for a terminal."""
        return visible(super().format(record))
