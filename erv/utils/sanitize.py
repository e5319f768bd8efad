"""Handle values from untrusted sources (data sets, models, servers) safely when they are parsed or displayed (SECURITY.md)."""

from __future__ import annotations

import json
import logging
import re
from typing import Any

_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")  # a spreadsheet evaluates a cell that begins with one of these
# C0 and C1 control characters except tab and line feed, and the characters that change the direction of writing
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def parse_json(text: str) -> Any:
    """Parse a JSON text; ValueError for anything that is not valid JSON, also for what is nested too deeply for the parser."""
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("is nested too deeply") from error


def visible(text: str) -> str:
    r"""Escape control characters (as `\x1b`), so that `text` cannot move a terminal's cursor, colour it or reorder letters."""
    return _CONTROL.sub(lambda match: match.group().encode("unicode_escape").decode(), text)


def cell(value: Any) -> Any:
    """Make `value` safe as a CSV cell: a string that a spreadsheet would evaluate as a formula gets a leading apostrophe."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA_STARTS) else value


class VisibleFormatter(logging.Formatter):
    """Log formatter that escapes control characters; conf/hydra/job_logging uses it."""

    def format(self, record: logging.LogRecord) -> str:
        """Format a record, traceback included, for a terminal."""
        return visible(super().format(record))
