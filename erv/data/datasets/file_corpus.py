"""The base class of data sets in files: rows become clips with labels of one taxonomy, in splits that share nothing."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import ClassVar, Literal

from erv.data.datasets.base import SPLITS, CorpusError, CorpusMissing, PublishedCounts, Row
from erv.data.datasets.subset import stratified_holdout, stratified_subset
from erv.taxonomy import Taxonomy, named_taxonomy, of_labels
from erv.types import Clip, Split

_LOCATIONS = ("video", "audio", "source")  # fields of a clip that say where it lies, not what it is
_SPLIT_PRIORITY = {"test": 0, "dev": 1, "train": 2}  # a clip that is listed in two splits stays in the first of these


@dataclass(kw_only=True)
class FileCorpus(ABC):
    """A data set in files below `root`. A subclass says what is in the files; `erv.data.datasets.base` tells how.

    Args:
        root: Folder of the data set.
        taxonomy: What labels are read into: a built-in name, or a list of labels. None: `native_taxonomy`.
        dev: Share of the training clips that is held out as the dev split of a data set without one; stratified by label,
            whole subjects where they are known. 0: no dev split.
        expect: "published": `require` refuses files whose counts are not those of the authors.
        limit: Training clips to use, drawn evenly over the labels. None: all.
        dev_limit: Dev clips to use. None: all.
        on_unknown: A label outside the taxonomy stops the run ("error"), or its clip is left out ("skip").
        on_repeat: A clip that is listed twice stops the run ("error"), or is used once ("drop"); in test only, where it is
            also a test clip.
    """

    name: ClassVar[str]
    default_taxonomy: ClassVar[Taxonomy]
    how_to_get: ClassVar[str]

    root: str
    taxonomy: Taxonomy = None  # type: ignore[assignment] # a name, a list or None until __post_init__ has made it one
    dev: float = 0.05
    expect: Literal["published", "none"] = "published"
    limit: int | None = None
    dev_limit: int | None = None
    on_unknown: Literal["error", "skip"] = "error"
    on_repeat: Literal["error", "drop"] = "error"
    _left_out: Counter[str] = field(default_factory=Counter, init=False, repr=False)  # reason -> rows

    def __post_init__(self) -> None:
        """Check the settings, and make the taxonomy."""
        if not 0 <= self.dev < 1:
            raise ValueError(f"data.dev is the share of training clips held out, in [0, 1), got {self.dev}")
        for key in ("limit", "dev_limit"):
            if (value := getattr(self, key)) is not None and value < 1:
                raise ValueError(f"data.{key} is at least 1, or null for all clips; got {value}")
        self.taxonomy = self._make_taxonomy(self.taxonomy)

    def _make_taxonomy(self, labels: Taxonomy | str | Sequence[str] | None) -> Taxonomy:
        if labels is None:
            return self.native_taxonomy
        if isinstance(labels, str):
            return named_taxonomy(labels)
        return labels if isinstance(labels, Taxonomy) else of_labels(f"{self.name}_labels", tuple(labels))

    @property
    def native_taxonomy(self) -> Taxonomy:
        """The label set that the files are written in."""
        return self.default_taxonomy

    @abstractmethod
    def rows(self) -> Iterator[Row]:
        """Every row of the files in use, in their order. Raises CorpusMissing when they do not exist."""

    def published_counts(self) -> dict[Split, PublishedCounts]:
        """What the authors say of the splits in use; "train" includes what is held out as "dev" here."""
        return {}

    def require(self) -> None:
        """Check that labels, repeats and counts are as the settings allow. Raises CorpusMissing or CorpusError."""
        _ = self._splits  # raises for unknown labels and repeated clips
        deviations = self.deviations()
        if deviations and self.expect == "published":
            raise CorpusMissing(
                "\n  ".join([f"{self.name} at {self.root} is not what was published:", *deviations])
                + "\nget the missing files, or set data.expect=none for a part of it or another release"
            )

    def prepare(self) -> None:  # noqa: B027 - a data set that is generated overrides it
        """Do nothing: the files cannot be made."""

    def deviations(self) -> list[str]:
        """How the counts of the rows differ from the published ones."""
        lines = []
        for split, published in self.published_counts().items():
            counts = Counter(self.native_taxonomy.normalise(row.label) for row in self._rows if row.split == split)
            if counts.total() != published.clips:
                lines.append(f"{split}: {counts.total():,} clips, published are {published.clips:,}")
            for label, expected in (published.by_label or {}).items():
                if counts[label] != expected:
                    lines.append(f"{split}: {counts[label]:,} clips of {label}, published are {expected:,}")
        return lines

    def clips(self, split: Split) -> list[Clip]:
        """The clips of `split` in the order of the files."""
        return self._splits[split]

    def digest(self) -> str:
        """sha256 of all clips and labels, without where the clips lie."""
        rows = [
            {key: value for key, value in asdict(clip).items() if key not in _LOCATIONS}
            for split in SPLITS
            for clip in self.clips(split)
        ]
        return hashlib.sha256(json.dumps([self.taxonomy.labels, rows], ensure_ascii=False).encode()).hexdigest()

    def identity(self, clip: Clip) -> str:
        """The clip's name in every fold and packaging, such as "dfew/17"."""
        return f"{self.name}/{clip.id}"

    def warnings(self) -> list[str]:
        """What was left out of the rows, and how they differ from what was published."""
        _ = self._splits  # fills _left_out
        lines = [f"{count:,} rows left out: {reason}" for reason, count in self._left_out.items()]
        deviations = self.deviations()
        return lines + ([f"not as published: {'; '.join(deviations)}"] if deviations else [])

    @cached_property
    def _rows(self) -> list[Row]:
        return list(self.rows())

    @cached_property
    def _splits(self) -> dict[Split, list[Clip]]:
        """The clips to use of each split."""
        labelled = [clip for row in self._rows if (clip := self._clip(row)) is not None]
        clips = self._without_repeats(labelled)
        splits: dict[Split, list[Clip]] = {split: [c for c in clips if c.split == split] for split in SPLITS}
        if not splits["dev"] and self.dev:
            held_out = stratified_holdout(splits["train"], self.dev)
            splits["dev"] = [replace(clip, split="dev") for clip in splits["train"] if clip.id in held_out]
            splits["train"] = [clip for clip in splits["train"] if clip.id not in held_out]
        splits["train"] = stratified_subset(splits["train"], self.limit)
        splits["dev"] = stratified_subset(splits["dev"], self.dev_limit)
        return splits

    def _clip(self, row: Row) -> Clip | None:
        """The row's clip with its label in the taxonomy; None for an unknown label that is to be skipped."""
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
            id=row.id,
            video=row.video,
            label=label,
            split=row.split,
            rationale=row.rationale,
            subject=row.subject,
            language=row.language,
            source=row.source,
            audio=row.audio,
            weight=row.weight,
        )

    def _without_repeats(self, clips: Sequence[Clip]) -> list[Clip]:
        """Each clip once, in the order of the files; a clip of the test split stays a test clip."""
        chosen: dict[str, Clip] = {}
        for clip in sorted(clips, key=lambda c: _SPLIT_PRIORITY[c.split]):
            first = chosen.setdefault(clip.id, clip)
            if first is clip:
                continue
            if first.label != clip.label:
                raise CorpusError(
                    f"{clip.source}: clip {clip.id} is {clip.label} here and {first.label} in {first.source}; correct one of "
                    "the rows"
                )
            if self.on_repeat == "error":
                raise CorpusError(
                    f"clip {clip.id} is listed twice, in {first.split} ({first.source}) and in {clip.split} ({clip.source}); "
                    "set data.on_repeat=drop to keep the first only, or correct the files"
                )
            self._left_out[f"listed twice, in {first.split} and {clip.split}"] += 1
        return [clip for clip in clips if chosen[clip.id] is clip]
