"""DFEW: 11,697 single-labelled film clips in seven classes and five folds (spec: datasets.md).

The data are for academic use and must be asked for from their authors; nothing of them is in this project.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from erv.data.datasets.base import CorpusError, CorpusMissing
from erv.data.datasets.file_corpus import FileCorpus, Published, Row
from erv.data.datasets.file_index import AUDIO_SUFFIXES, Places
from erv.taxonomy import DFEW, Taxonomy
from erv.types import Split

_LAYOUTS = (  # the two packagings in use: where the labels of a fold are, with what column name
    ("label/single_{split}set_{fold}.csv", "id"),
    ("EmoLabel_DataSplit/{split}(single-labeled)/set_{fold}.csv", "video_name"),
)
_CLIPS = ("clip", "videos", "Clip", "video", "data")  # of video files, or of folders of pictures
_SPLITS: tuple[Split, Split] = ("train", "test")
# Clips of fold 1 to 5 as published: train, and test by class 1 to 7
_TRAIN = {1: 9356, 2: 9356, 3: 9357, 4: 9358, 5: 9361}
_TEST = {
    1: (489, 379, 534, 435, 294, 29, 181), 2: (489, 379, 534, 435, 294, 29, 181), 3: (489, 379, 534, 435, 294, 29, 180),
    4: (489, 379, 534, 434, 294, 29, 180), 5: (489, 378, 533, 434, 293, 29, 180),
}  # fmt: skip
_TRAIN_5 = (1956, 1516, 2136, 1739, 1176, 116, 722)


@dataclass(kw_only=True)
class DFEWCorpus(FileCorpus):
    """Fold `fold` of DFEW, in either packaging; the paper evaluates fold 5, the literature averages all five.

    A clip is a file such as 1.mp4 or 00001.mp4, or a folder of pictures; `audio` names a folder below the root with the
    sound of the latter (1.wav). `clips_in` names the folder of the clips, where it is none of the usual ones.
    """

    name: ClassVar[str] = "dfew"
    own: ClassVar[Taxonomy] = DFEW
    how_to_get: ClassVar[str] = (
        "DFEW is for academic use; its authors give it on request (https://dfew-dataset.github.io)"
    )

    fold: int = 5
    clips_in: str | None = None
    audio: str | None = None

    def __post_init__(self) -> None:
        """Check the fold."""
        super().__post_init__()
        if self.fold not in _TRAIN:
            raise ValueError(f"data.fold is 1 to 5, got {self.fold}")

    def published(self) -> dict[Split, Published]:
        """Clips of the fold by split and class."""
        train = dict(zip(DFEW.labels, _TRAIN_5, strict=True)) if self.fold == 5 else None
        test = dict(zip(DFEW.labels, _TEST[self.fold], strict=True))
        return {"train": Published(_TRAIN[self.fold], train), "test": Published(sum(_TEST[self.fold]), test)}

    def rows(self) -> Iterator[Row]:
        """The fold's label files."""
        files = {split: self._label_file(split) for split in _SPLITS}
        if not self._places.there:
            raise CorpusMissing(self._expected("its clips are nowhere"))
        for split, (file, column) in files.items():
            with file.open(newline="", encoding="utf-8-sig") as lines:
                for number, line in enumerate(csv.DictReader(lines), start=2):
                    yield self._row(line, column, split, f"{file}:{number}")

    def _row(self, line: dict[str, str | None], column: str, split: Split, source: str) -> Row:
        id_, label = (line.get(column) or "").strip().removesuffix(".mp4"), (line.get("label") or "").strip()
        if not id_ or label not in {str(i) for i in range(1, 8)}:
            raise CorpusError(
                f"{source}: a row is {column},label with a label id from 1 to 7; got {list(line.values())}; fetch the file again"
            )
        names = (id_, id_.zfill(5))
        plain = id_.lstrip("0") or "0"
        sound = self._sounds.find(*names, plain) if self._sounds else None
        return Row(plain, self._places.find(*names, plain), DFEW.labels[int(label) - 1], split, source, audio=sound)

    @cached_property
    def _places(self) -> Places:
        return Places(self.root, (self.clips_in,) if self.clips_in else _CLIPS)

    @cached_property
    def _sounds(self) -> Places | None:
        return Places(self.root, (self.audio,), AUDIO_SUFFIXES) if self.audio else None

    def _label_file(self, split: str) -> tuple[Path, str]:
        for name, column in _LAYOUTS:
            file = Path(self.root) / name.format(split=split, fold=self.fold)
            if file.is_file():
                return file, column
        raise CorpusMissing(self._expected(f"the labels of fold {self.fold} ({split}) are not there"))

    def _expected(self, what: str) -> str:
        labels = "\n  ".join(name.format(split="{train,test}", fold=self.fold) for name, _ in _LAYOUTS)
        folders = ", ".join((self.clips_in,) if self.clips_in else _CLIPS)
        return (
            f"DFEW is not at {self.root}: {what}. Expected there are the labels in one of\n  {labels}\n"
            f"and the clips (1.mp4, 00001.mp4 or folders of pictures 00001/) in one of {folders}.\n{self.how_to_get}. "
            "Set data.root to where it is (or ERV_DATA to the folder above)"
        )
