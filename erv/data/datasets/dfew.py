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

from erv.data.datasets.base import CorpusError, CorpusMissing, PublishedCounts, Row
from erv.data.datasets.file_corpus import FileCorpus
from erv.data.datasets.file_index import AUDIO_SUFFIXES, FileIndex
from erv.taxonomy import DFEW, Taxonomy
from erv.types import Split

_LABEL_FILES = (  # of the two packagings in use, with the name of the column that holds the clip
    ("label/single_{split}set_{fold}.csv", "id"),
    ("EmoLabel_DataSplit/{split}(single-labeled)/set_{fold}.csv", "video_name"),
)
_CLIP_FOLDERS = ("clip", "videos", "Clip", "video", "data")  # of video files, or of folders of frames
_SPLITS: tuple[Split, Split] = ("train", "test")
# Published clips of each fold: all of train; test by label id 1 to 7; train of fold 5 by label id
_TRAIN = {1: 9356, 2: 9356, 3: 9357, 4: 9358, 5: 9361}
_TEST_BY_LABEL = {
    1: (489, 379, 534, 435, 294, 29, 181),
    2: (489, 379, 534, 435, 294, 29, 181),
    3: (489, 379, 534, 435, 294, 29, 180),
    4: (489, 379, 534, 434, 294, 29, 180),
    5: (489, 378, 533, 434, 293, 29, 180),
}
_TRAIN_5_BY_LABEL = (1956, 1516, 2136, 1739, 1176, 116, 722)


@dataclass(kw_only=True)
class DFEWCorpus(FileCorpus):
    """One fold of DFEW, in either packaging.

    A clip is a file such as 1.mp4 or 00001.mp4, or a folder of frames.

    Args:
        fold: 1 to 5; the paper evaluates fold 5, the literature averages all five.
        clips_in: Folder of the clips below the root, where it is none of the usual ones.
        audio: Folder below the root with the sound (1.wav) of clips that are folders of frames.
    """

    name: ClassVar[str] = "dfew"
    default_taxonomy: ClassVar[Taxonomy] = DFEW
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

    def published_counts(self) -> dict[Split, PublishedCounts]:
        """Clips of the fold by split and label."""
        train = dict(zip(DFEW.labels, _TRAIN_5_BY_LABEL, strict=True)) if self.fold == 5 else None
        test = dict(zip(DFEW.labels, _TEST_BY_LABEL[self.fold], strict=True))
        return {
            "train": PublishedCounts(_TRAIN[self.fold], train),
            "test": PublishedCounts(sum(test.values()), test),
        }

    def rows(self) -> Iterator[Row]:
        """The rows of the fold's label files."""
        files = {split: self._label_file(split) for split in _SPLITS}
        if not self._clip_index.exists:
            raise CorpusMissing(self._what_is_expected("its clips are nowhere"))
        for split, (file, column) in files.items():
            with file.open(newline="", encoding="utf-8-sig") as lines:
                for number, line in enumerate(csv.DictReader(lines), start=2):
                    yield self._row(line, column, split, f"{file}:{number}")

    def _row(self, line: dict[str, str | None], column: str, split: Split, source: str) -> Row:
        number, label = (line.get(column) or "").strip().removesuffix(".mp4"), (line.get("label") or "").strip()
        if not number or label not in {str(i) for i in range(1, 8)}:
            raise CorpusError(
                f"{source}: a row is {column},label with a label id from 1 to 7; got {list(line.values())}; fetch the file again"
            )
        # One packaging writes 00001 where the other writes 1; the clip's id must not depend on it.
        id_ = number.lstrip("0") or "0"
        names = (number, number.zfill(5), id_)
        return Row(
            id=id_,
            video=self._clip_index.path_of(*names),
            label=DFEW.labels[int(label) - 1],
            split=split,
            source=source,
            audio=self._audio_index.path_of(*names) if self._audio_index else None,
        )

    @cached_property
    def _clip_index(self) -> FileIndex:
        return FileIndex(self.root, (self.clips_in,) if self.clips_in else _CLIP_FOLDERS)

    @cached_property
    def _audio_index(self) -> FileIndex | None:
        return FileIndex(self.root, (self.audio,), AUDIO_SUFFIXES) if self.audio else None

    def _label_file(self, split: str) -> tuple[Path, str]:
        """The split's label file, and its column of clips."""
        for name, column in _LABEL_FILES:
            file = Path(self.root) / name.format(split=split, fold=self.fold)
            if file.is_file():
                return file, column
        raise CorpusMissing(self._what_is_expected(f"the labels of fold {self.fold} ({split}) are not there"))

    def _what_is_expected(self, problem: str) -> str:
        labels = "\n  ".join(name.format(split="{train,test}", fold=self.fold) for name, _ in _LABEL_FILES)
        folders = ", ".join((self.clips_in,) if self.clips_in else _CLIP_FOLDERS)
        return (
            f"DFEW is not at {self.root}: {problem}. Expected there are the labels in one of\n  {labels}\n"
            f"and the clips (1.mp4, 00001.mp4 or folders of pictures 00001/) in one of {folders}.\n{self.how_to_get}. "
            "Set data.root to where it is (or ERV_DATA to the folder above)"
        )
