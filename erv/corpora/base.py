"""What every corpus offers, and the error when its files are not there."""

from __future__ import annotations

from typing import Protocol

from erv.emotions import Taxonomy
from erv.records import Clip, Split


class CorpusMissing(Exception):
    """The corpus' files are absent or incomplete; the message says what is expected where, and how to get it."""


class Corpus(Protocol):
    """Where clips come from."""

    taxonomy: Taxonomy

    def require(self) -> None:
        """Raise CorpusMissing when the files are absent and cannot be made."""

    def prepare(self) -> None:
        """Make the files where they can be made."""

    def clips(self, split: Split) -> list[Clip]:
        """The clips of one split, in a fixed order."""
