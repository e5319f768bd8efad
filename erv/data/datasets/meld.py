"""MELD: utterances of the series Friends with seven emotions and published train, dev and test splits (spec: datasets.md)."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from erv.data.datasets.base import CorpusError, CorpusMissing
from erv.data.datasets.file_corpus import FileCorpus, Published, Row
from erv.data.datasets.file_index import Places
from erv.taxonomy import MELD, Taxonomy
from erv.types import Split

_CLIPS: dict[Split, tuple[str, ...]] = {  # as unpacked, and as the archives name them
    "train": ("train_splits", "train"),
    "dev": ("dev_splits_complete", "dev"),
    "test": ("output_repeated_splits_test", "test"),
}
_PUBLISHED: dict[Split, int] = {"train": 9989, "dev": 1109, "test": 2610}
_LONG = "test_dia220_utt0"
_COLUMNS = ("Dialogue_ID", "Utterance_ID", "Emotion")


@dataclass(kw_only=True)
class MELDCorpus(FileCorpus):
    """MELD as unpacked: `{train,dev,test}_sent_emo.csv` and a folder of clips dia{d}_utt{u}.mp4 for each split.

    Numbers of dialogues are used again in every split, so a clip's id begins with its split. The speaker is the subject. Known
    defects of the release: dev's dia110_utt7 is missing and train's dia125_utt3 corrupt, which `media.on_missing` and
    `media.on_corrupt` meet; test's dia220_utt0 is minutes long, which `warnings` says.
    """

    name: ClassVar[str] = "meld"
    own: ClassVar[Taxonomy] = MELD
    how_to_get: ClassVar[str] = "MELD is at https://affective-meld.github.io (GPL-3.0)"

    def published(self) -> dict[Split, Published]:
        """Rows of the three files."""
        return {split: Published(count) for split, count in _PUBLISHED.items()}

    def rows(self) -> Iterator[Row]:
        """The three files."""
        files = {split: self._file(split) for split in _PUBLISHED}
        for split, file in files.items():
            places = Places(self.root, _CLIPS[split])
            with file.open(newline="", encoding="utf-8-sig") as lines:
                for number, line in enumerate(csv.DictReader(lines), start=2):
                    missing = [column for column in _COLUMNS if not (line.get(column) or "").strip()]
                    if missing:
                        raise CorpusError(
                            f"{file}:{number}: nothing in column {', '.join(missing)}; fetch the file again"
                        )
                    clip = f"dia{line['Dialogue_ID'].strip()}_utt{line['Utterance_ID'].strip()}"
                    speaker = (line.get("Speaker") or "").strip() or None
                    yield Row(
                        f"{split}_{clip}", places.find(clip), line["Emotion"], split, f"{file}:{number}", subject=speaker
                    )  # fmt: skip

    def warnings(self) -> list[str]:
        """As for every corpus, and the clip that holds far more than its utterance."""
        long = any(clip.id == _LONG for clip in self.clips("test"))
        what = f"{_LONG} is cut wrongly in the release, to minutes instead of an utterance; media.max_seconds=60 refuses it"
        return [*super().warnings(), *([what] if long else [])]

    def _file(self, split: Split) -> Path:
        names = (f"{split}_sent_emo.csv", f"{split}/{split}_sent_emo.csv")
        found = next((file for name in names if (file := Path(self.root) / name).is_file()), None)
        if found is None:
            folders = ", ".join(folder for folders in _CLIPS.values() for folder in folders[:1])
            raise CorpusMissing(
                f"MELD is not at {self.root}: {names[0]} is not there. Expected are {{train,dev,test}}_sent_emo.csv and the "
                f"folders {folders} with clips dia0_utt0.mp4; {self.how_to_get}. Set data.root to where it is"
            )
        return found
