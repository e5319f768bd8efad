"""The verifier's training set: labelled sentences from several sources, split by clip, with noise put in on purpose."""

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
from erv.verifier.label_noise import Noise

Row = dict[str, Any]
Source = str | Mapping[str, str | None]  # a file, a folder, or a file for each split
AUGMENTED = "augmented"  # the source that `augmentation` switches


class Sentences:
    """Labelled rows {"text", "labels"} from tables (CSV, TSV, JSONL, Parquet) and from data sets in their own layouts.

    `files` maps a source's name to its file, its folder, or {split: file}; `formats` to its layout in `erv.verifier.importers`
    (default: table). `sources` chooses among them (default: all that have a file), and without `augmentation` the source
    "augmented" is not used. A row has one label or more; they are translated into those of `taxonomy`, and a row with a
    label that has no counterpart there stops the run, or is left out (`on_unknown`).

    Splits: train, heldout (also dev, validation) for choices (threshold, temperature), audit (also test) for figures that
    no choice has seen, withheld. Rows that name no split are held out by clip, or by text where no clip is named, in the
    shares `heldout` and `audit`; augmented rows are only trained on. `train` is the split that is trained on: "audit" gives
    a second verifier that has seen nothing of the first one's text, to tell a better policy from a gamed verifier. `limit`
    keeps the first training rows; `noise` spoils labels of training rows.
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
        noise: Noise | None = None,
        formats: Mapping[str, str] | None = None,
        on_unknown: Literal["error", "skip"] = "error",
    ) -> None:
        if min(heldout, audit) < 0 or heldout + audit >= 1:
            raise ValueError(
                f"verifier.data.heldout + verifier.data.audit are shares that leave rows to train on, got {heldout} + {audit}"
            )
        if train not in ("train", "audit"):
            raise ValueError(f"verifier.data.train is train or audit, got {train!r}")
        chosen = list(sources) if sources is not None else [name for name, file in files.items() if file]
        chosen = [name for name in chosen if augmentation or name != AUGMENTED]
        if augmentation and AUGMENTED not in chosen:
            raise ValueError(
                "verifier.data.augmentation=true needs verifier.data.files.augmented, made by erv.label task=augment"
            )
        formats = formats or {}
        if unknown := {name: format_ for name, format_ in formats.items() if format_ not in FORMATS}:
            name, format_ = next(iter(unknown.items()))
            raise ValueError(f"verifier.data.formats.{name} is one of {', '.join(FORMATS)}, got {format_!r}")
        problems = []
        self.files: dict[str, list[tuple[Path, str | None]]] = {}
        for name in chosen:
            try:
                self.files[name] = table_files(files.get(name))
            except ValueError as error:
                problems.append(f"{name}: {error}")
        if problems or not chosen:
            raise ValueError(
                f"no labelled sentences of source {', '.join(problems) or 'none is chosen'}; set verifier.data.files.SOURCE to a "
                "table (.jsonl of erv.label, .csv, .tsv, .parquet) or a folder of tables, or leave the source out of "
                "verifier.data.sources"
            )
        self.formats = {name: formats.get(name, "table") for name in chosen}
        self.taxonomy, self.seed, self.train, self.limit = taxonomy, seed, train, limit
        self.heldout, self.audit, self.noise, self.on_unknown = heldout, audit, noise or Noise(), on_unknown
        self._left_out: Counter[str] = Counter()
        self._translations: dict[str, str | None] = {}

    def rows(self, split: str) -> list[Row]:
        """The rows of "train" (what is trained on), "heldout", "audit" or "withheld", in the files' order."""
        if split == "train":
            return self._training
        if split == "audit" and self.train == "audit":
            return []
        return [row for row in self._all if row["split"] == split]

    @property
    def clips(self) -> set[str]:
        """The clips that the rows of any split were written about."""
        return {row["clip"] for row in self._all if row.get("clip") is not None}

    def warnings(self) -> list[str]:
        """What was left out of the files."""
        _ = self._all
        return [f"verifier.data: {count:,} rows left out: {why}" for why, count in self._left_out.items()]

    def provenance(self) -> list[Row]:
        """Where the rows of each source come from: file names, layout, rows by split, languages, who labelled, licence.

        None stands for what neither the layout nor the rows tell.
        """
        facts = []
        for source, files in self.files.items():
            rows, format_ = [row for row in self._all if row["source"] == source], FORMATS[self.formats[source]]
            labelled_by = sorted({str(row["labelled_by"]) for row in rows if row.get("labelled_by")})
            facts.append(
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
        return facts

    @cached_property
    def _training(self) -> list[Row]:
        rows = [row for row in self._all if row["split"] == self.train][: self.limit]
        if not rows:
            places = ", ".join(str(file) for files in self.files.values() for file, _ in files)
            raise ValueError(f"there is no row of split {self.train!r} to train on in {places}")
        return self.noise.spoil(rows, self.taxonomy, self.seed)

    @cached_property
    def _all(self) -> list[Row]:
        rows = []
        for source, files in self.files.items():
            for file, split in files:
                for place, row in FORMATS[self.formats[source]].read(file, self.taxonomy.labels):
                    if checked := self._checked(row, source, split, place):
                        rows.append(checked)
        return rows

    def _checked(self, row: Row, source: str, split: str | None, place: str) -> Row | None:
        """The row in the labels of the taxonomy, with its split; None for one that is left out."""
        if not isinstance(row.get("text"), str) or not row["text"].strip():
            raise ValueError(f"{place}: text is a text that is not empty, got {row.get('text', 'no such column')!r}")
        if row["labels"] is None:
            self._left_out[f"{source} has no labels for them"] += 1
            return None
        if not row["labels"]:
            raise ValueError(f"{place}: a row has at least one label; {self.taxonomy.neutral} is one too")
        labels = []
        for label in row["labels"]:
            translated = self._translated(label)
            if translated is None and self.on_unknown == "skip":
                self._left_out[
                    f"label {label!r} of {source} has no counterpart in taxonomy {self.taxonomy.name!r}"
                ] += 1
                return None
            if translated is None:
                raise ValueError(
                    f"{place}: label {label!r} has no counterpart in taxonomy {self.taxonomy.name!r} "
                    f"({', '.join(self.taxonomy.labels)}); correct it, set another data.taxonomy, or "
                    "verifier.data.on_unknown=skip to leave such rows out"
                )
            labels.append(translated)
        name = str(row.get("split") or split or "").strip().lower() or self._split(row, source)
        if name not in SPLITS:
            raise ValueError(f"{place}: split is one of {', '.join(SPLITS)}, got {row['split']!r}")
        return {**row, "labels": list(dict.fromkeys(labels)), "split": SPLITS[name], "source": source}

    def _translated(self, label: str) -> str | None:
        """What the taxonomy calls `label`; None where it has nothing of the kind."""
        if label not in self._translations:
            neutral = label.lower() == "neutral" and self.taxonomy.neutral in self.taxonomy.labels
            try:
                self._translations[label] = (
                    self.taxonomy.neutral if neutral else counterpart(label, self.taxonomy.labels)
                )
            except ValueError:
                self._translations[label] = None
        return self._translations[label]

    def _split(self, row: Row, source: str) -> str:
        if source == AUGMENTED:
            return "train"
        clip = row.get("clip")
        digest = hashlib.sha256((row["text"] if clip is None else f"clip {clip}").encode()).digest()
        place = int.from_bytes(digest[:8], "big") / 2**64
        return "audit" if place < self.audit else "heldout" if place < self.audit + self.heldout else "train"
