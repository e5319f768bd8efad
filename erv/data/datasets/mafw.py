"""MAFW: 10,045 clips; 9,172 with one of 11 emotions, and a compound set with 32 combinations of them (spec: datasets.md).

Free for researchers on request to its authors; nothing of it is in this project.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Literal
from zipfile import BadZipFile, ZipFile

from openpyxl import load_workbook

from erv.data.datasets.base import CorpusError, CorpusMissing, PublishedCounts, Row
from erv.data.datasets.file_corpus import FileCorpus
from erv.data.datasets.file_index import FileIndex
from erv.taxonomy import MAFW, Taxonomy, compound
from erv.types import Split

_SPLIT_FILE = "Train & Test Set/{kind}/no_caption/set_{fold}/{split}.txt"
_SPLITS: tuple[Split, Split] = ("train", "test")
_CLIP_FOLDERS = ("clips", "data/clips", "videos")
_SPREADSHEETS = {"single": "Labels/single-set.xlsx", "compound": "Labels/multi-set.xlsx"}
_LABEL_COLUMN, _HEADER_ROWS = 12, 2  # of the spreadsheets; column 0 holds the clip
_MAX_SPREADSHEET_BYTES = 200 * 10**6  # unpacked; the published ones have less than two million (a zip bomb has more)
_LABEL_OF_ID = {str(number): label for number, label in enumerate(MAFW.labels, start=1)}
COMPOUND_LABELS = 32
# Published clips of set 1 to 5 (train, test), and of set 5 by label id 1 to 11
SINGLE_COUNTS = {1: (7333, 1839), 2: (7335, 1837), 3: (7339, 1833), 4: (7340, 1832), 5: (7341, 1831)}
COMPOUND_COUNTS = {1: (7178, 1818), 2: (7187, 1809), 3: (7198, 1798), 4: (7208, 1788), 5: (7213, 1783)}
SINGLE_5_BY_LABEL: dict[Split, tuple[int, ...]] = {
    "train": (1112, 512, 500, 994, 911, 1176, 858, 189, 733, 210, 146),
    "test": (278, 127, 125, 248, 227, 294, 214, 47, 183, 52, 36),
}


@dataclass(kw_only=True)
class MAFWCorpus(FileCorpus):
    """One set of MAFW's single-label or compound-label split; the paper uses single, set 5.

    Labels come from the split files, and must agree with the spreadsheets in `Labels/` where these exist. Compound labels
    join emotions in the order of their ids: anger_disgust.

    Args:
        fold: The set, 1 to 5.
        kind: "single" (11 labels) or "compound" (with 32 combinations of them).
        clips_in: Folder of the clips below the root, where it is none of the usual ones.
    """

    name: ClassVar[str] = "mafw"
    default_taxonomy: ClassVar[Taxonomy] = MAFW
    how_to_get: ClassVar[str] = (
        "MAFW is free for researchers; its authors give it on request (https://mafw-database.github.io/MAFW)"
    )

    fold: int = 5
    kind: Literal["single", "compound"] = "single"
    clips_in: str | None = None

    def __post_init__(self) -> None:
        """Check the fold, which the files of the compound taxonomy are named after, before anything else."""
        if self.fold not in SINGLE_COUNTS:
            raise ValueError(f"data.fold is 1 to 5, got {self.fold}")
        super().__post_init__()

    @cached_property
    def native_taxonomy(self) -> Taxonomy:
        """The 11 emotions; for the compound set also the combinations that its files hold."""
        if self.kind == "single" or not all(self._split_file(split).is_file() for split in _SPLITS):
            return MAFW
        return compound(MAFW, (label for split in _SPLITS for _, label, _ in self._split_lines(split)))

    def deviations(self) -> list[str]:
        """As for every data set, and the number of combinations."""
        lines = super().deviations()
        combinations = sum("_" in label for label in self.native_taxonomy.labels)
        if self.kind == "compound" and combinations != COMPOUND_LABELS:
            lines.append(f"{combinations} combinations of emotions, published are {COMPOUND_LABELS}")
        return lines

    def published_counts(self) -> dict[Split, PublishedCounts]:
        """Clips of the set by split, and by label where that is published."""
        counts = (SINGLE_COUNTS if self.kind == "single" else COMPOUND_COUNTS)[self.fold]
        by_label: dict[Split, dict[str, int]] = {}
        if self.kind == "single" and self.fold == 5:
            by_label = {
                split: dict(zip(MAFW.labels, numbers, strict=True)) for split, numbers in SINGLE_5_BY_LABEL.items()
            }
        return {
            split: PublishedCounts(clips, by_label.get(split)) for split, clips in zip(_SPLITS, counts, strict=True)
        }

    def rows(self) -> Iterator[Row]:
        """The lines of the set's split files."""
        files = [self._split_file(split) for split in _SPLITS]
        if not all(file.is_file() for file in files) or not self._clip_index.exists:
            listed = "\n  ".join(map(str, files))
            raise CorpusMissing(
                f"MAFW is not at {self.root}: expected there are the splits\n  {listed}\n(the spaces belong to the names), lines "
                f"such as '00025.mp4 anger', and the clips in {' or '.join(self._clip_index.folders)}.\n{self.how_to_get}. Set "
                "data.root to where it is (or ERV_DATA to the folder above)"
            )
        for split in _SPLITS:
            for clip, label, source in self._split_lines(split):
                other = self._spreadsheet_labels.get(clip)
                if other is not None and self.native_taxonomy.normalise(other) != self.native_taxonomy.normalise(label):
                    raise CorpusError(
                        f"{source}: {clip} is {label} here and {other} in {_SPREADSHEETS[self.kind]}; one of the files is of "
                        "another release: fetch both again, or remove the spreadsheet"
                    )
                yield Row(Path(clip).stem, self._clip_index.path_of(Path(clip).stem), label, split, source)

    def _split_file(self, split: str) -> Path:
        return Path(self.root) / _SPLIT_FILE.format(kind=self.kind, fold=self.fold, split=split)

    def _split_lines(self, split: Split) -> Iterator[tuple[str, str, str]]:
        """(Clip, label, FILE:LINE) of each line of a split file."""
        file = self._split_file(split)
        with file.open(encoding="utf-8-sig") as lines:
            for number, line in enumerate(lines, start=1):
                words = line.split()
                if len(words) == 2:
                    yield words[0], words[1].lower(), f"{file}:{number}"
                elif words:
                    raise CorpusError(
                        f"{file}:{number}: a line is a clip and a label, got {line.strip()!r}; fetch it again"
                    )

    @cached_property
    def _spreadsheet_labels(self) -> dict[str, str]:
        """Clip -> label as the spreadsheet has it, "1,6" as anger_sadness; empty without the file."""
        file = Path(self.root) / _SPREADSHEETS[self.kind]
        if not file.is_file():
            return {}
        try:
            with ZipFile(file) as archive:
                size = sum(member.file_size for member in archive.infolist())
        except BadZipFile as error:
            raise CorpusError(f"{file} is no spreadsheet ({error}); fetch it again") from error
        if size > _MAX_SPREADSHEET_BYTES:
            raise CorpusError(
                f"{file} unpacks to {size:,} bytes, at most {_MAX_SPREADSHEET_BYTES:,} are read; replace it"
            )
        sheet = load_workbook(file, read_only=True, data_only=True).worksheets[0]
        labels = {}
        for number, cells in enumerate(
            sheet.iter_rows(min_row=_HEADER_ROWS + 1, values_only=True), start=_HEADER_ROWS + 1
        ):
            if not cells or cells[0] is None:
                continue
            ids = str(cells[_LABEL_COLUMN] if len(cells) > _LABEL_COLUMN else "").split(",")
            if not all(id_.strip() in _LABEL_OF_ID for id_ in ids):
                raise CorpusError(
                    f"{file}, row {number}: column {_LABEL_COLUMN + 1} holds label ids from 1 to 11, got {','.join(ids)!r}"
                )
            labels[str(cells[0]).strip()] = "_".join(_LABEL_OF_ID[id_.strip()] for id_ in ids)
        return labels

    @cached_property
    def _clip_index(self) -> FileIndex:
        return FileIndex(self.root, (self.clips_in,) if self.clips_in else _CLIP_FOLDERS)
