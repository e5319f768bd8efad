"""Several data sets as one: the paper trains on DFEW and MAFW together (spec: datasets.md, RL set)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

from erv.data.datasets.base import SPLITS, CorpusError
from erv.data.datasets.file_corpus import FileCorpus
from erv.data.datasets.subset import stratified_subset
from erv.taxonomy import Taxonomy, named_taxonomy
from erv.types import Clip, Split


@dataclass(kw_only=True)
class Mixture:
    """The clips of several data sets under ids such as dfew/17, with labels of one taxonomy.

    Args:
        parts: Name -> data set.
        taxonomy: What the labels of all parts are read into; a built-in name.
        weights: Name -> how often a pass over the data shows the clips of that part, on average (default 1).
        limit: Training clips of the whole to use, drawn evenly over the labels. None: all.
        dev_limit: Dev clips of the whole to use. None: all.
    """

    name: ClassVar[str] = "mixture"

    parts: Mapping[str, FileCorpus]
    taxonomy: Taxonomy
    weights: Mapping[str, float] | None = None
    limit: int | None = None
    dev_limit: int | None = None

    def __post_init__(self) -> None:
        """Give every part the taxonomy, and check the weights."""
        if not self.parts:
            raise ValueError("data.parts must name corpora")
        if isinstance(self.taxonomy, str):
            self.taxonomy = named_taxonomy(self.taxonomy)
        for part in self.parts.values():
            part.taxonomy = self.taxonomy
        for name, weight in (self.weights or {}).items():
            if name not in self.parts or weight <= 0:
                raise ValueError(f"data.weights gives a number above 0 to {', '.join(self.parts)}; got {name}={weight}")

    @property
    def root(self) -> str:
        """The folders of the parts."""
        return ", ".join(part.root for part in self.parts.values())

    def require(self) -> None:
        """Check every part, and that no clip is in two of them: none may test on what another is trained on."""
        clips: dict[str, Clip] = {}
        for part in self.parts.values():
            part.require()
            for split in SPLITS:
                for clip in part.clips(split):
                    other = clips.setdefault(part.identity(clip), clip)
                    if other is not clip:
                        raise CorpusError(
                            f"{part.identity(clip)} is in two of data.parts, {other.split} in {other.source} and {clip.split} in "
                            f"{clip.source}; leave one of them out"
                        )

    def prepare(self) -> None:
        """Do nothing: the files cannot be made."""

    def clips(self, split: Split) -> list[Clip]:
        """The parts' clips, one part after the other."""
        clips = []
        for name, part in self.parts.items():
            weight = (self.weights or {}).get(name, 1.0)
            for clip in part.clips(split):
                clips.append(
                    replace(
                        clip,
                        id=part.identity(clip),
                        subject=f"{name}/{clip.subject}" if clip.subject else None,
                        weight=clip.weight * weight,
                    )
                )
        return stratified_subset(clips, {"train": self.limit, "dev": self.dev_limit}.get(split))

    def digest(self) -> str:
        """sha256 of the parts' digests, and of the ids and weights of the clips in use."""
        drawn = [[clip.id, clip.weight] for split in SPLITS for clip in self.clips(split)]
        text = json.dumps([[part.digest() for part in self.parts.values()], drawn])
        return hashlib.sha256(text.encode()).hexdigest()

    def identity(self, clip: Clip) -> str:
        """The id, which is the part's identity already."""
        return clip.id

    def warnings(self) -> list[str]:
        """The warnings of the parts."""
        return [f"{name}: {text}" for name, part in self.parts.items() for text in part.warnings()]
