"""Who reads an explanation when we evaluate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from erv.records import Verdict


class Judge(Protocol):
    """Reads the text between the think tags and says which emotion it speaks of.

    `free` says that asking costs nothing, so that curves and single sentences may be judged too.
    """

    name: str
    free: bool

    def __call__(self, texts: Sequence[str]) -> list[Verdict]:
        """One verdict per text, in order."""
