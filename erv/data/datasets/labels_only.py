"""A label set without clips, for verifiers that are trained on text alone."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from erv.data.datasets.base import CorpusMissing
from erv.taxonomy import Taxonomy, named_taxonomy, of_labels
from erv.types import Clip, Split

_NOT_GIVEN = Taxonomy("not given", ())


@dataclass(kw_only=True)
class LabelsCorpus:
    """A `taxonomy` and no clips.

    Args:
        taxonomy: A built-in name, or a list of labels. Required; without it `require` says what to set.
        neutral: Of a list of labels, the one of no emotion.
        root: There are no files; every data set has the key.
    """

    name: ClassVar[str] = "labels"

    taxonomy: Taxonomy = None  # type: ignore[assignment] # a name, a list or None until __post_init__ has made it one
    neutral: str = "neutral"
    root: str = ""

    def __post_init__(self) -> None:
        """Make the taxonomy."""
        labels: Taxonomy | str | Sequence[str] | None = self.taxonomy
        if labels is None:
            self.taxonomy = _NOT_GIVEN
        elif isinstance(labels, str):
            self.taxonomy = named_taxonomy(labels)
        elif not isinstance(labels, Taxonomy):
            self.taxonomy = replace(of_labels(self.name, tuple(labels)), neutral=self.neutral)

    def require(self) -> None:
        """Raise CorpusMissing without a taxonomy."""
        if self.taxonomy is _NOT_GIVEN:
            raise CorpusMissing(
                "data=labels is a label set: set data.taxonomy to a built-in one, such as data.taxonomy=goemotions, or to your "
                "list of labels, data.taxonomy=[positive,negative,neutral]"
            )

    def prepare(self) -> None:
        """Do nothing: there are no files."""

    def clips(self, split: Split) -> list[Clip]:
        """No clips, in any split."""
        return []

    def digest(self) -> str:
        """sha256 of the labels."""
        labels = [self.taxonomy.labels, self.taxonomy.neutral]
        return hashlib.sha256(json.dumps(labels, ensure_ascii=False).encode()).hexdigest()

    def identity(self, clip: Clip) -> str:
        """As of every data set, though there are no clips."""
        return f"{self.name}/{clip.id}"

    def warnings(self) -> list[str]:
        """Nothing is left out."""
        return []
