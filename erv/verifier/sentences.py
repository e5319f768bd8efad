"""The verifier's training set: labelled sentences from several sources, split by clip, with noise put in on purpose."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from erv.emotions import Taxonomy
from erv.untrusted import parse_json
from erv.verifier.noise import Noise

Row = dict[str, Any]
AUGMENTED = "augmented"  # the source that `augmentation` switches
SPLITS = ("train", "heldout", "audit", "withheld")


class Sentences:
    """Labelled rows {"text", "labels"} of JSONL files, as `erv.label` writes them; rows whose status is not "ok" are left out.

    `files` maps a source's name to its file; `sources` chooses among them (default: all that have a file), and without
    `augmentation` the source "augmented" is not used. Rows that name no split are held out by clip, or by text where no
    clip is named: the share `heldout` for choices (threshold, temperature), the share `audit` for figures that no choice
    has seen; augmented rows are only trained on. `train` is the split that is trained on: "audit" gives a second verifier
    that has seen nothing of the first one's text, to tell a better policy from a gamed verifier. `limit` keeps the first
    training rows; `noise` spoils labels of training rows.
    """

    def __init__(
        self, files: Mapping[str, str | None], taxonomy: Taxonomy, seed: int = 0, sources: Sequence[str] | None = None,
        augmentation: bool = False, train: Literal["train", "audit"] = "train", heldout: float = 0.1, audit: float = 0.1,
        limit: int | None = None, noise: Noise | None = None,
    ) -> None:  # fmt: skip
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
        absent = [name for name in chosen if not files.get(name) or not Path(str(files[name])).is_file()]
        if absent or not chosen:
            listed = ", ".join(f"{name}: {files.get(name)}" for name in absent) or "none is chosen"
            raise ValueError(
                f"no labelled sentences of source {listed}; set verifier.data.files.SOURCE to a JSONL file of erv.label, or "
                "leave the source out of verifier.data.sources"
            )
        self.files = {name: Path(str(files[name])) for name in chosen}
        self.taxonomy, self.seed, self.train, self.limit = taxonomy, seed, train, limit
        self.heldout, self.audit, self.noise = heldout, audit, noise or Noise()

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

    @cached_property
    def _training(self) -> list[Row]:
        rows = [row for row in self._all if row["split"] == self.train][: self.limit]
        if not rows:
            raise ValueError(
                f"there is no row of split {self.train!r} to train on in {', '.join(map(str, self.files.values()))}"
            )
        return self.noise.spoil(rows, self.taxonomy, self.seed)

    @cached_property
    def _all(self) -> list[Row]:
        found = []
        for source, file in self.files.items():
            for number, line in enumerate(file.read_text().splitlines(), start=1):
                row = parse_json(line)
                if row.get("status", "ok") == "ok":
                    found.append(self._checked(row, source, f"{file}:{number}"))
        return found

    def _checked(self, row: Row, source: str, where: str) -> Row:
        split = row.get("split") or self._split(row, source)
        if split not in SPLITS:
            raise ValueError(f"{where}: split is one of {', '.join(SPLITS)}, got {split!r}")
        if not row["labels"]:
            raise ValueError(f"{where}: a row of status ok has at least one label; {self.taxonomy.neutral} is one too")
        for label in row["labels"]:
            try:
                self.taxonomy.index(label)
            except ValueError as error:
                raise ValueError(f"{where}: {error}") from error
        return {**row, "split": split, "source": source}

    def _split(self, row: Row, source: str) -> str:
        if source == AUGMENTED:
            return "train"
        clip = row.get("clip")
        digest = hashlib.sha256((row["text"] if clip is None else f"clip {clip}").encode()).digest()
        place = int.from_bytes(digest[:8], "big") / 2**64
        return "audit" if place < self.audit else "heldout" if place < self.audit + self.heldout else "train"
