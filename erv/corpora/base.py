"""What every corpus offers, and the error when its files are not there."""

from __future__ import annotations

from collections.abc import Iterable
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


def refuse_overlap(corpus: Corpus, clips: Iterable[str], what: str) -> None:
    """Raise ValueError when the text `what` was written about clips that `corpus` evaluates on (its dev and test splits).

    The verifier's training text was made from clips; with an evaluation clip among them the verifier would know what it
    is to judge, and its reward would leak into the figures.
    """
    evaluated = {clip.id for split in ("dev", "test") for clip in corpus.clips(split)}
    shared = sorted(evaluated.intersection(clips))
    if shared:
        raise ValueError(
            f"{what}: {len(shared)} of its clips are evaluation clips of this corpus, first {', '.join(shared[:3])}; only the "
            "train split may feed the verifier: make the text again from train clips of the fold in use"
        )
