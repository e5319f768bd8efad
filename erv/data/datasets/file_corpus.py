"""What all corpora on disk have in common: rows become clips with labels of one taxonomy, in splits that share nothing."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import ClassVar, Literal

from erv.data.datasets.base import SPLITS, CorpusError, CorpusMissing
from erv.data.datasets.subset import first, held_out
from erv.taxonomy import Taxonomy, named_taxonomy, of_labels
from erv.types import Clip, Split

_PLACES = ("video", "audio", "source")  # of a clip: where things lie is not what they are


@dataclass(frozen=True, slots=True)
class Row:
    """A line of a corpus' own files, as it stands there. `source` names the file and the line, for messages."""

    id: str
    video: str
    label: str
    split: Split
    source: str
    rationale: str | None = None
    subject: str | None = None
    language: str = "en"
    audio: str | None = None
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Published:
    """What the authors of a data set say that a split holds: clips, and clips of each label where that is known."""

    clips: int
    classes: Mapping[str, int] | None = None


@dataclass(kw_only=True)
class FileCorpus(ABC):
    """A corpus in files below `root`.

    `taxonomy` (a name, or a list of labels; None: the corpus' own) is what labels are read into. A corpus without a dev split
    has the share `dev` of its training clips held out, stratified, whole subjects where they are known. With `expect` "published"
    the counts of the authors must be there. `limit` and `dev_limit` keep that many train and dev clips, drawn evenly.

    `on_unknown`: a label outside the taxonomy stops the run or leaves its clip out. `on_repeat`: a clip that is listed twice
    stops the run, or is used once ("drop"; one that is also a test clip, in test only).
    """

    name: ClassVar[str]
    own: ClassVar[Taxonomy]
    how_to_get: ClassVar[str]

    root: str
    taxonomy: Taxonomy = None  # type: ignore[assignment] # what is given is made one below
    dev: float = 0.05
    expect: Literal["published", "none"] = "published"
    limit: int | None = None
    dev_limit: int | None = None
    on_unknown: Literal["error", "skip"] = "error"
    on_repeat: Literal["error", "drop"] = "error"
    _left_out: Counter[str] = field(default_factory=Counter, init=False, repr=False)

    def __post_init__(self) -> None:
        """Check the settings, and find the taxonomy."""
        if not 0 <= self.dev < 1:
            raise ValueError(f"data.dev is the share of training clips held out, in [0, 1), got {self.dev}")
        for key in ("limit", "dev_limit"):
            if (value := getattr(self, key)) is not None and value < 1:
                raise ValueError(f"data.{key} is at least 1, or null for all clips; got {value}")
        self.taxonomy = self._taxonomy(self.taxonomy)

    def _taxonomy(self, given: Taxonomy | str | Sequence[str] | None) -> Taxonomy:
        if given is None:
            return self.native
        if isinstance(given, str):
            return named_taxonomy(given)
        return given if isinstance(given, Taxonomy) else of_labels(f"{self.name}_labels", tuple(given))

    @property
    def native(self) -> Taxonomy:
        """The taxonomy of the labels as they stand in the files."""
        return self.own

    @abstractmethod
    def rows(self) -> Iterator[Row]:
        """Every row of the files in use, in their order. Raises CorpusMissing when they are not there."""

    def published(self) -> dict[Split, Published]:
        """What the authors say of the splits in use; "train" includes what is held out as "dev" here."""
        return {}

    def require(self) -> None:
        """Raise CorpusMissing or CorpusError for what would be wrong later."""
        _ = self._splits  # unknown labels and repeated clips
        deviations = self.deviations()
        if deviations and self.expect == "published":
            raise CorpusMissing(
                "\n  ".join([f"{self.name} at {self.root} is not what was published:", *deviations])
                + "\nget the missing files, or set data.expect=none for a part of it or another release"
            )

    def prepare(self) -> None:  # noqa: B027 - a corpus that can be made overrides it
        """Nothing: it cannot be made."""

    def deviations(self) -> list[str]:
        """How the rows differ from what was published."""
        found = []
        for split, published in self.published().items():
            counts = Counter(self.native.normalise(row.label) for row in self._rows if row.split == split)
            if counts.total() != published.clips:
                found.append(f"{split}: {counts.total():,} clips, published are {published.clips:,}")
            for label, expected in (published.classes or {}).items():
                if counts[label] != expected:
                    found.append(f"{split}: {counts[label]:,} clips of {label}, published are {expected:,}")
        return found

    def clips(self, split: Split) -> list[Clip]:
        """The clips of `split` in the order of the files."""
        return self._splits[split]

    def digest(self) -> str:
        """sha256 of all clips but for where they lie."""
        rows = [
            {k: v for k, v in asdict(clip).items() if k not in _PLACES}
            for split in SPLITS
            for clip in self.clips(split)
        ]
        return hashlib.sha256(json.dumps([self.taxonomy.labels, rows], ensure_ascii=False).encode()).hexdigest()

    def identity(self, clip: Clip) -> str:
        """The clip under a name that does not depend on fold and packaging."""
        return f"{self.name}/{clip.id}"

    def warnings(self) -> list[str]:
        """What was left out of the rows, and how they differ from what was published."""
        _ = self._splits
        found = [f"{count:,} rows left out: {why}" for why, count in self._left_out.items()]
        deviations = self.deviations()
        return found + ([f"not as published: {'; '.join(deviations)}"] if deviations else [])

    @cached_property
    def _rows(self) -> list[Row]:
        return list(self.rows())

    @cached_property
    def _labelled(self) -> list[Clip]:
        """Every row with its label, each clip once."""
        return list(self._once(self._clip(row) for row in self._rows))

    def _clip(self, row: Row) -> Clip | None:
        try:
            label = self.taxonomy.label_of(row.label)
        except ValueError as error:
            if self.on_unknown == "error":
                raise CorpusError(
                    f"{row.source}: {error}; or set data.on_unknown=skip, or another data.taxonomy"
                ) from error
            self._left_out[f"label {row.label!r} is not in taxonomy {self.taxonomy.name}"] += 1
            return None
        return Clip(
            row.id, row.video, label, row.split, row.rationale, row.subject, row.language, row.source, row.audio, row.weight
        )  # fmt: skip

    def _once(self, clips: Iterable[Clip | None]) -> Iterator[Clip]:
        """Each clip once; a test clip stays one."""
        listed = [clip for clip in clips if clip is not None]
        rank = {"test": 0, "dev": 1, "train": 2}
        chosen: dict[str, Clip] = {}
        for clip in sorted(listed, key=lambda c: rank[c.split]):
            known = chosen.setdefault(clip.id, clip)
            if known is clip:
                continue
            if known.label != clip.label:
                raise CorpusError(
                    f"{clip.source}: clip {clip.id} is {clip.label} here and {known.label} in {known.source}; correct one of "
                    "the rows"
                )
            what = (
                f"clip {clip.id} is listed twice, in {known.split} ({known.source}) and in {clip.split} ({clip.source})"
            )
            if self.on_repeat == "error":
                raise CorpusError(f"{what}; set data.on_repeat=drop to keep the first only, or correct the files")
            self._left_out[f"listed twice, in {known.split} and {clip.split}"] += 1
        kept = {id(clip) for clip in chosen.values()}
        return (clip for clip in listed if id(clip) in kept)

    @cached_property
    def _splits(self) -> dict[Split, list[Clip]]:
        found: dict[Split, list[Clip]] = {s: [c for c in self._labelled if c.split == s] for s in SPLITS}
        if not found["dev"] and self.dev:
            held = held_out(found["train"], self.dev)
            found["dev"] = [Clip(**{**asdict(c), "split": "dev"}) for c in found["train"] if c.id in held]
            found["train"] = [c for c in found["train"] if c.id not in held]
        found["train"], found["dev"] = first(found["train"], self.limit), first(found["dev"], self.dev_limit)
        return found
