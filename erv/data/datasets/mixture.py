"""Several corpora as one: the paper trains on DFEW and MAFW together (spec: datasets.md, RL set)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import ClassVar

from erv.data.datasets.base import SPLITS, Corpus, CorpusError
from erv.data.datasets.file_corpus import FileCorpus
from erv.data.datasets.subset import first
from erv.taxonomy import Taxonomy, named_taxonomy
from erv.types import Clip, Split


@dataclass(kw_only=True)
class Mixture:
    """The clips of `parts` under ids such as dfew/17, labels read into `taxonomy`.

    `weights`: how often a pass over the data shows the clips of a part, on average (default 1). `limit` and `dev_limit` are those
    of the whole.
    """

    name: ClassVar[str] = "mixture"

    parts: Mapping[str, FileCorpus]
    taxonomy: Taxonomy
    weights: Mapping[str, float] | None = None
    limit: int | None = None
    dev_limit: int | None = None

    def __post_init__(self) -> None:
        """Give every part the taxonomy and check the weights."""
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
        """Where the parts lie."""
        return ", ".join(part.root for part in self.parts.values())

    def require(self) -> None:
        """All parts must be there, and none may test on what another is trained on."""
        seen: dict[str, Clip] = {}
        for part in self.parts.values():
            part.require()
            for split in SPLITS:
                for clip in part.clips(split):
                    other = seen.setdefault(part.identity(clip), clip)
                    if other is not clip:
                        raise CorpusError(
                            f"{part.identity(clip)} is in two of data.parts, {other.split} in {other.source} and {clip.split} in "
                            f"{clip.source}; leave one of them out"
                        )

    def prepare(self) -> None:
        """Nothing: the parts cannot be made."""

    def clips(self, split: Split) -> list[Clip]:
        """The parts' clips, one part after the other."""
        found = [self._own(name, part, clip) for name, part in self.parts.items() for clip in part.clips(split)]
        return first(found, {"train": self.limit, "dev": self.dev_limit}.get(split))

    def _own(self, name: str, part: Corpus, clip: Clip) -> Clip:
        subject = f"{name}/{clip.subject}" if clip.subject else None
        weight = clip.weight * (self.weights or {}).get(name, 1.0)
        return Clip(**{**asdict(clip), "id": part.identity(clip), "subject": subject, "weight": weight})

    def digest(self) -> str:
        """sha256 of the parts' digests and of what is made of them."""
        made = [[clip.id, clip.weight] for split in SPLITS for clip in self.clips(split)]
        text = json.dumps([[part.digest() for part in self.parts.values()], made])
        return hashlib.sha256(text.encode()).hexdigest()

    def identity(self, clip: Clip) -> str:
        """Ids are names that do not depend on the mixture."""
        return clip.id

    def warnings(self) -> list[str]:
        """Those of the parts."""
        return [f"{name}: {text}" for name, part in self.parts.items() for text in part.warnings()]
