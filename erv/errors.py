"""Errors whose message is all that a user needs to see."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """An error whose message is all that a user needs to see."""


class ConfigError(UserError):
    """A config that cannot be run; the message lists every problem."""


def did_you_mean(key: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown key: the nearest known ones, or nothing."""
    every, name = list(dict.fromkeys(known)), key.rpartition(".")[2]
    elsewhere = [other for other in every if other.rpartition(".")[2] == name]  # the right name in the wrong group
    near = list(dict.fromkeys([*elsewhere, *difflib.get_close_matches(key, every, n=2, cutoff=0.6)]))[:2]
    return f"; did you mean {' or '.join(repr(k) for k in near)}?" if near else ""
