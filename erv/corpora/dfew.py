"""DFEW: 11,697 single-labelled film clips in seven classes and five folds (spec: datasets.md).

The data are for academic use and must be asked for from their authors; nothing of them is in this project.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from erv.corpora.base import CorpusMissing
from erv.emotions import DFEW
from erv.records import Clip, Split

# (train, test) clips of fold 1 to 5, as published
PUBLISHED = {1: (9356, 2341), 2: (9356, 2341), 3: (9357, 2340), 4: (9358, 2339), 5: (9361, 2336)}
_LAYOUTS = (  # the two packagings in use: where the labels of a fold are, with what column name
    ("label/single_{split}set_{fold}.csv", "id"),
    ("EmoLabel_DataSplit/{split}(single-labeled)/set_{fold}.csv", "video_name"),
)
_CLIP_FOLDERS = ("clip", "videos")


class DFEWCorpus:
    """Fold `fold` of DFEW below `root`, in either packaging; the paper evaluates fold 5.

    DFEW has no dev split: the share `dev` of the training clips, drawn with a fixed seed, is held out for choices. With
    `partial` counts other than the published ones are accepted.
    """

    taxonomy = DFEW

    def __init__(self, root: str, fold: int = 5, dev: float = 0.05, partial: bool = False) -> None:
        if fold not in PUBLISHED:
            raise ValueError(f"data.corpus.fold is 1 to 5, got {fold}")
        if not 0 <= dev < 1:
            raise ValueError(f"data.corpus.dev is the share of training clips held out, in [0, 1), got {dev}")
        self.root, self.fold, self.dev, self.partial = Path(root), fold, dev, partial

    def require(self) -> None:
        """Raise CorpusMissing, saying what is expected where, when labels or clips are absent."""
        for split, published in zip(("train", "test"), PUBLISHED[self.fold], strict=True):
            found = len(list(self._rows(split)))
            if found != published and not self.partial:
                raise CorpusMissing(
                    f"DFEW fold {self.fold} has {published} {split} clips, the label file lists {found}; fetch it again, or "
                    "set data.corpus.partial=true"
                )
        for split in ("train", "test"):
            absent = [id_ for id_, _ in self._rows(split) if self._find(id_) is None]
            if absent:
                raise CorpusMissing(
                    f"{len(absent)} of DFEW's {split} clips are not below {self.root} (folders {' or '.join(_CLIP_FOLDERS)}), "
                    f"first {absent[0]}.mp4; put them there, or set data.corpus.root"
                )

    def prepare(self) -> None:
        """Nothing: DFEW cannot be made."""

    def clips(self, split: Split) -> list[Clip]:
        """The clips of one split; "train" and "dev" share the fold's training list."""
        rows = [*self._rows("test" if split == "test" else "train")]
        if split != "test":
            order = np.random.default_rng(self.fold).permutation(len(rows))
            held = set(order[: round(self.dev * len(rows))].tolist())
            rows = [row for i, row in enumerate(rows) if (i in held) == (split == "dev")]
        return [
            Clip(id_, str(self._find(id_)), DFEW.labels[label - 1], split, source=f"DFEW fold {self.fold}")
            for id_, label in rows
        ]

    def _rows(self, split: str) -> Iterator[tuple[str, int]]:
        file, column = self._labels(split)
        with file.open(newline="", encoding="utf-8-sig") as lines:
            for number, row in enumerate(csv.DictReader(lines), start=2):
                id_, label = (row.get(column) or "").strip().removesuffix(".mp4"), (row.get("label") or "").strip()
                if not id_ or label not in {str(i) for i in range(1, 8)}:
                    raise CorpusMissing(
                        f"{file}:{number}: a row is {column},label with a label id from 1 to 7; got {list(row.values())}; "
                        "fetch the file again"
                    )
                yield id_, int(label)

    def _labels(self, split: str) -> tuple[Path, str]:
        names = [(self.root / name.format(split=split, fold=self.fold), column) for name, column in _LAYOUTS]
        for file, column in names:
            if file.is_file():
                return file, column
        listed = "\n  ".join(str(file) for file, _ in names)
        raise CorpusMissing(
            f"DFEW is not at {self.root}: the labels of fold {self.fold} ({split}) are expected in one of\n  {listed}\n"
            f"and the clips in {self.root / _CLIP_FOLDERS[0]} or {self.root / _CLIP_FOLDERS[1]}. DFEW is for academic use; its "
            "authors give it on request. Set data.corpus.root to where it is"
        )

    def _find(self, id_: str) -> Path | None:
        names = [id_, id_.zfill(5)]
        candidates = (self.root / folder / f"{name}.mp4" for folder in _CLIP_FOLDERS for name in names)
        return next((path for path in candidates if path.is_file()), None)
