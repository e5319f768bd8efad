"""What every corpus offers, and the errors when its files are not what they should be."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar, Protocol

from erv.taxonomy import Taxonomy
from erv.types import Clip, Split

SPLITS: tuple[Split, ...] = ("train", "dev", "test")


class CorpusMissing(Exception):
    """The corpus' files are absent or incomplete; the message says what is expected where, and how to get it."""


class CorpusError(ValueError):
    """The corpus' files contradict themselves or the taxonomy; the message names the row and the remedy."""


class Corpus(Protocol):
    """Where clips come from. `name` is the data set, whatever the packaging."""

    name: ClassVar[str]
    taxonomy: Taxonomy

    @property
    def root(self) -> str | Path:
        """Where the files lie."""

    def require(self) -> None:
        """Raise CorpusMissing when files are absent and cannot be made, CorpusError when they cannot be right."""

    def prepare(self) -> None:
        """Make the files where they can be made."""

    def clips(self, split: Split) -> list[Clip]:
        """The clips of one split, in a fixed order."""

    def digest(self) -> str:
        """sha256 of what the clips are, wherever they lie: for a run's signature."""

    def identity(self, clip: Clip) -> str:
        """The clip under a name that is the same in every packaging, fold and mixture: "dfew/17"."""

    def warnings(self) -> list[str]:
        """What a user should know of these clips: leaks, what was left out, what the published files have otherwise."""


def refuse_overlap(corpus: Corpus, clips: Iterable[str], what: str) -> None:
    """Raise ValueError when the text `what` was written about clips that `corpus` evaluates on (its dev and test splits).

    The verifier's training text was made from clips; with an evaluation clip among them the verifier would know what it
    is to judge, and its reward would leak into the figures.
    """
    evaluated = {name for s in ("dev", "test") for c in corpus.clips(s) for name in (c.id, corpus.identity(c))}
    shared = sorted(evaluated.intersection(clips))
    if shared:
        raise ValueError(
            f"{what}: {len(shared)} of its clips are evaluation clips of this corpus, first {', '.join(shared[:3])}; only the "
            "train split may feed the verifier: make the text again from train clips of the fold in use"
        )
