"""MELD: utterances of the series Friends with seven emotions and published train, dev and test splits (spec: datasets.md)."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from erv.data.datasets.base import CorpusError, CorpusMissing, PublishedCounts, Row
from erv.data.datasets.file_corpus import FileCorpus
from erv.data.datasets.file_index import FileIndex
from erv.taxonomy import MELD, Taxonomy
from erv.types import Split

_CLIP_FOLDERS: dict[Split, tuple[str, ...]] = {  # as unpacked, and as the archives name them
    "train": ("train_splits", "train"),
    "dev": ("dev_splits_complete", "dev"),
    "test": ("output_repeated_splits_test", "test"),
}
_PUBLISHED: dict[Split, int] = {"train": 9989, "dev": 1109, "test": 2610}
_WRONGLY_CUT_CLIP = "test_dia220_utt0"
_COLUMNS = ("Dialogue_ID", "Utterance_ID", "Emotion")


@dataclass(kw_only=True)
class MELDCorpus(FileCorpus):
    """MELD as unpacked: `{train,dev,test}_sent_emo.csv` and a folder of clips dia{d}_utt{u}.mp4 for each split.

    Dialogue numbers are used again in every split, so a clip's id begins with its split. The speaker is the subject. Known
    defects of the release: dev's dia110_utt7 is missing and train's dia125_utt3 corrupt, which `media.on_missing` and
    `media.on_corrupt` handle; test's dia220_utt0 is minutes long, which `warnings` says.
    """

    name: ClassVar[str] = "meld"
    default_taxonomy: ClassVar[Taxonomy] = MELD
    how_to_get: ClassVar[str] = "MELD is at https://affective-meld.github.io (GPL-3.0)"

    def published_counts(self) -> dict[Split, PublishedCounts]:
        """Rows of the three files."""
        return {split: PublishedCounts(count) for split, count in _PUBLISHED.items()}

    def rows(self) -> Iterator[Row]:
        """The rows of the three files."""
        files = {split: self._annotation_file(split) for split in _PUBLISHED}
        for split, file in files.items():
            clips = FileIndex(self.root, _CLIP_FOLDERS[split])
            with file.open(newline="", encoding="utf-8-sig") as lines:
                for number, line in enumerate(csv.DictReader(lines), start=2):
                    empty = [column for column in _COLUMNS if not (line.get(column) or "").strip()]
                    if empty:
                        raise CorpusError(
                            f"{file}:{number}: nothing in column {', '.join(empty)}; fetch the file again"
                        )
                    clip = f"dia{line['Dialogue_ID'].strip()}_utt{line['Utterance_ID'].strip()}"
                    yield Row(
                        id=f"{split}_{clip}",
                        video=clips.path_of(clip),
                        label=line["Emotion"],
                        split=split,
                        source=f"{file}:{number}",
                        subject=(line.get("Speaker") or "").strip() or None,
                    )

    def warnings(self) -> list[str]:
        """As for every data set, and the clip that holds far more than its utterance."""
        lines = super().warnings()
        if any(clip.id == _WRONGLY_CUT_CLIP for clip in self.clips("test")):
            lines.append(
                f"{_WRONGLY_CUT_CLIP} is cut wrongly in the release, to minutes instead of an utterance; "
                "media.max_seconds=60 refuses it"
            )
        return lines

    def _annotation_file(self, split: Split) -> Path:
        names = (f"{split}_sent_emo.csv", f"{split}/{split}_sent_emo.csv")
        for name in names:
            if (file := Path(self.root) / name).is_file():
                return file
        folders = ", ".join(folders[0] for folders in _CLIP_FOLDERS.values())
        raise CorpusMissing(
            f"MELD is not at {self.root}: {names[0]} is not there. Expected are {{train,dev,test}}_sent_emo.csv and the "
            f"folders {folders} with clips dia0_utt0.mp4; {self.how_to_get}. Set data.root to where it is"
        )
