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

    def prepare(self) -> None:
        """Make the files or check that they are there; raises CorpusMissing."""

    def clips(self, split: Split) -> list[Clip]:
        """The clips of one split, in a fixed order."""
