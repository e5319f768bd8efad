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
    """`taxonomy` and no clips: a built-in name, or a list of labels of which `neutral` is the one of no emotion."""

    name: ClassVar[str] = "labels"

    taxonomy: Taxonomy = None  # type: ignore[assignment] # what is given is made one below
    neutral: str = "neutral"
    root: str = ""

    def __post_init__(self) -> None:
        """Make the taxonomy."""
        given: Taxonomy | str | Sequence[str] | None = self.taxonomy
        if given is None:
            self.taxonomy = _NOT_GIVEN
        elif isinstance(given, str):
            self.taxonomy = named_taxonomy(given)
        elif not isinstance(given, Taxonomy):
            self.taxonomy = replace(of_labels(self.name, tuple(given)), neutral=self.neutral)

    def require(self) -> None:
        """Raise CorpusMissing without a taxonomy; there are no files."""
        if self.taxonomy is _NOT_GIVEN:
            raise CorpusMissing(
                "data=labels is a label set: set data.taxonomy to a built-in one, such as data.taxonomy=goemotions, or to your "
                "list of labels, data.taxonomy=[positive,negative,neutral]"
            )

    def prepare(self) -> None:
        """Nothing: there is nothing to make."""

    def clips(self, split: Split) -> list[Clip]:
        """None, in any split."""
        return []

    def digest(self) -> str:
        """sha256 of the labels."""
        labels = [self.taxonomy.labels, self.taxonomy.neutral]
        return hashlib.sha256(json.dumps(labels, ensure_ascii=False).encode()).hexdigest()

    def identity(self, clip: Clip) -> str:
        """As in every corpus; there is no clip to ask it of."""
        return f"{self.name}/{clip.id}"

    def warnings(self) -> list[str]:
        """None: nothing can be left out."""
        return []
