"""The verifier's training set: labelled sentences from several sources, split by clip, optionally with label noise."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from erv.taxonomy import Taxonomy, counterpart
from erv.utils.tables import SPLITS, table_files
from erv.verifier.importers import FORMATS
from erv.verifier.label_noise import LabelNoise

Row = dict[str, Any]  # "text", "labels", "split", "source", and whatever else its file holds ("clip", "language", …)
Source = str | Mapping[str, str | None]  # a file, a folder, or a file for each split
AUGMENTED = "augmented"  # the source that `augmentation` switches on


class Sentences:
    """Labelled sentences from tables (CSV, TSV, JSONL, Parquet) and from data sets in their published layouts.

    A row has one or more labels, which are translated into those of the taxonomy.

    Splits are "train"; "heldout" (also dev, validation), on which threshold and temperature are chosen; "audit" (also test),
    which no choice has read; and "withheld". Rows that name no split are held out by clip, or by text where they name no
    clip. Augmented rows are only trained on.

    Args:
        files: Source name -> its file, its folder, or {split: file}; None for a source without a file.
        taxonomy: Label set of the rows.
        seed: Seed of the label noise.
        sources: Names of the sources to use (default: all that have a file).
        augmentation: Use the source "augmented".
        train: Split that is trained on. "audit" makes a second verifier that has read nothing of the first one's text, to
            tell a better policy from one that exploits its verifier.
        heldout: Share of the clips, or texts, of rows without a split that are held out.
        audit: The same for the audit split.
        limit: Number of training rows, the first ones (default: all).
        noise: Wrong labels in training rows.
        formats: Source name -> layout, a key of `erv.verifier.importers.FORMATS` (default: table).
        on_unknown: What happens to a row with a label that has no counterpart in the taxonomy: "error" stops the run, "skip"
            leaves the row out and counts it.
    """

    def __init__(
        self,
        files: Mapping[str, Source | None],
        taxonomy: Taxonomy,
        seed: int = 0,
        sources: Sequence[str] | None = None,
        augmentation: bool = False,
        train: Literal["train", "audit"] = "train",
        heldout: float = 0.1,
        audit: float = 0.1,
        limit: int | None = None,
        noise: LabelNoise | None = None,
        formats: Mapping[str, str] | None = None,
        on_unknown: Literal["error", "skip"] = "error",
    ) -> None:
        if min(heldout, audit) < 0 or heldout + audit >= 1:
            raise ValueError(
                f"verifier.data.heldout + verifier.data.audit are shares that leave rows to train on, got {heldout} + {audit}"
            )
        if train not in ("train", "audit"):
            raise ValueError(f"verifier.data.train is train or audit, got {train!r}")
        names = list(sources) if sources is not None else [name for name, file in files.items() if file]
        names = [name for name in names if augmentation or name != AUGMENTED]
        if augmentation and AUGMENTED not in names:
            raise ValueError(
                "verifier.data.augmentation=true needs verifier.data.files.augmented, made by erv.label task=augment"
            )
        formats = formats or {}
        for name, format_ in formats.items():
            if format_ not in FORMATS:
                raise ValueError(f"verifier.data.formats.{name} is one of {', '.join(FORMATS)}, got {format_!r}")
        problems = []
        self.files: dict[str, list[tuple[Path, str | None]]] = {}  # source -> (file, split that its name tells)
        for name in names:
            try:
                self.files[name] = table_files(files.get(name))
            except ValueError as error:
                problems.append(f"{name}: {error}")
        if problems or not names:
            raise ValueError(
                f"no labelled sentences of source {', '.join(problems) or 'none is chosen'}; set verifier.data.files.SOURCE to a "
                "table (.jsonl of erv.label, .csv, .tsv, .parquet) or a folder of tables, or leave the source out of "
                "verifier.data.sources"
            )
        self.formats = {name: formats.get(name, "table") for name in names}
        self.taxonomy, self.seed, self.train, self.limit = taxonomy, seed, train, limit
        self.heldout, self.audit, self.noise, self.on_unknown = heldout, audit, noise or LabelNoise(), on_unknown
        self._skipped: Counter[str] = Counter()  # reason -> rows left out
        self._translations: dict[str, str | None] = {}  # label of a file -> label of the taxonomy

    def rows(self, split: str) -> list[Row]:
        """The rows of "train" (what is trained on), "heldout", "audit" or "withheld", in the files' order."""
        if split == "train":
            return self._training_rows
        if split == "audit" and self.train == "audit":
            return []
        return [row for row in self._all_rows if row["split"] == split]

    @property
    def clips(self) -> set[str]:
        """The clips that the rows of any split were written about."""
        return {row["clip"] for row in self._all_rows if row.get("clip") is not None}

    def warnings(self) -> list[str]:
        """Messages about the rows that were left out."""
        _ = self._all_rows  # reading the rows counts them
        return [f"verifier.data: {count:,} rows left out: {reason}" for reason, count in self._skipped.items()]

    def provenance(self) -> list[Row]:
        """Where the rows of each source come from: file names, layout, rows by split, languages, who labelled, licence.

        None stands for what neither the layout nor the rows record.
        """
        records = []
        for source, files in self.files.items():
            rows, format_ = [row for row in self._all_rows if row["source"] == source], FORMATS[self.formats[source]]
            labelled_by = sorted({str(row["labelled_by"]) for row in rows if row.get("labelled_by")})
            records.append(
                {
                    "source": source,
                    "file": ", ".join(dict.fromkeys(file.name for file, _ in files)),
                    "format": self.formats[source],
                    "rows": dict(Counter(row["split"] for row in rows)),
                    "languages": sorted({str(row["language"]) for row in rows if row.get("language")}),
                    "labelled_by": format_.labelled_by or ", ".join(labelled_by) or None,
                    "licence": format_.licence,
                }
            )
        return records

    @cached_property
    def _training_rows(self) -> list[Row]:
        rows = [row for row in self._all_rows if row["split"] == self.train][: self.limit]
        if not rows:
            paths = ", ".join(str(file) for files in self.files.values() for file, _ in files)
            raise ValueError(f"there is no row of split {self.train!r} to train on in {paths}")
        return self.noise.apply(rows, self.taxonomy, self.seed)

    @cached_property
    def _all_rows(self) -> list[Row]:
        rows = []
        for source, files in self.files.items():
            read = FORMATS[self.formats[source]].read
            for file, split in files:
                for location, raw in read(file, self.taxonomy.labels):
                    if row := self._validated(raw, source, split, location):
                        rows.append(row)
        return rows

    def _validated(self, row: Row, source: str, file_split: str | None, location: str) -> Row | None:
        """Check a row, translate its labels and assign its split; None for a row that is left out."""
        if not isinstance(row.get("text"), str) or not row["text"].strip():
            raise ValueError(f"{location}: text is a text that is not empty, got {row.get('text', 'no such column')!r}")
        if row["labels"] is None:
            self._skipped[f"{source} has no labels for them"] += 1
            return None
        if not row["labels"]:
            raise ValueError(f"{location}: a row has at least one label; {self.taxonomy.neutral} is one too")
        labels = []
        for label in row["labels"]:
            translation = self._translate(label)
            if translation is None and self.on_unknown == "skip":
                self._skipped[f"label {label!r} of {source} has no counterpart in taxonomy {self.taxonomy.name!r}"] += 1
                return None
            if translation is None:
                raise ValueError(
                    f"{location}: label {label!r} has no counterpart in taxonomy {self.taxonomy.name!r} "
                    f"({', '.join(self.taxonomy.labels)}); correct it, set another data.taxonomy, or "
                    "verifier.data.on_unknown=skip to leave such rows out"
                )
            labels.append(translation)
        # the row's own column, then the file's name, then a hash
        split = str(row.get("split") or file_split or "").strip().lower() or self._hash_split(row, source)
        if split not in SPLITS:
            raise ValueError(f"{location}: split is one of {', '.join(SPLITS)}, got {row['split']!r}")
        return {**row, "labels": list(dict.fromkeys(labels)), "split": SPLITS[split], "source": source}

    def _translate(self, label: str) -> str | None:
        """The taxonomy's label for the same emotion; None if it has none."""
        if label not in self._translations:
            is_neutral = label.lower() == "neutral" and self.taxonomy.neutral in self.taxonomy.labels
            try:
                self._translations[label] = (
                    self.taxonomy.neutral if is_neutral else counterpart(label, self.taxonomy.labels)
                )
            except ValueError:
                self._translations[label] = None
        return self._translations[label]

    def _hash_split(self, row: Row, source: str) -> str:
        """Assign a split by a hash of the clip, so that rows about one clip stay together and new rows move no others."""
        if source == AUGMENTED:
            return "train"
        clip = row.get("clip")
        digest = hashlib.sha256((row["text"] if clip is None else f"clip {clip}").encode()).digest()
        position = int.from_bytes(digest[:8], "big") / 2**64  # uniform in [0, 1)
        if position < self.audit:
            return "audit"
        return "heldout" if position < self.audit + self.heldout else "train"
