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

from erv.data.datasets.base import CorpusError, CorpusMissing
from erv.data.datasets.file_corpus import FileCorpus, Published, Row
from erv.data.datasets.file_index import Places
from erv.taxonomy import MAFW, Taxonomy, compound
from erv.types import Split

_MOST_BYTES = 200 * 10**6  # of a spreadsheet, unpacked: the published one has less than two million
_SPLIT_FILE = "Train & Test Set/{kind}/no_caption/set_{fold}/{split}.txt"
_LABEL_FILES = {"single": "Labels/single-set.xlsx", "compound": "Labels/multi-set.xlsx"}
_LABEL_COLUMN, _HEADER_ROWS = 12, 2  # of the spreadsheets; column 0 holds the clip
_IDS = {str(number): label for number, label in enumerate(MAFW.labels, start=1)}
_CLIPS = ("clips", "data/clips", "videos")
_SPLITS: tuple[Split, Split] = ("train", "test")
COMPOUND_CLASSES = 32
# Clips of set 1 to 5 as published (train, test)
_SINGLE = {1: (7333, 1839), 2: (7335, 1837), 3: (7339, 1833), 4: (7340, 1832), 5: (7341, 1831)}
_COMPOUND = {1: (7178, 1818), 2: (7187, 1809), 3: (7198, 1798), 4: (7208, 1788), 5: (7213, 1783)}
_SINGLE_5 = {
    "train": (1112, 512, 500, 994, 911, 1176, 858, 189, 733, 210, 146),
    "test": (278, 127, 125, 248, 227, 294, 214, 47, 183, 52, 36),
}


@dataclass(kw_only=True)
class MAFWCorpus(FileCorpus):
    """Set `fold` of MAFW's single-label or compound (`kind`) split; the paper uses single, set 5.

    The labels are those of the split files, and must be those of the spreadsheets in `Labels/` where these are there. Compound
    labels join emotions in the order of their ids: anger_disgust. `clips_in` names the folder of the clips.
    """

    name: ClassVar[str] = "mafw"
    own: ClassVar[Taxonomy] = MAFW
    how_to_get: ClassVar[str] = (
        "MAFW is free for researchers; its authors give it on request (https://mafw-database.github.io/MAFW)"
    )

    fold: int = 5
    kind: Literal["single", "compound"] = "single"
    clips_in: str | None = None

    def __post_init__(self) -> None:
        """Check the fold."""
        if self.fold not in _SINGLE:
            raise ValueError(f"data.fold is 1 to 5, got {self.fold}")
        super().__post_init__()

    @cached_property
    def native(self) -> Taxonomy:
        """The 11 emotions; for the compound set also the combinations that its files hold."""
        if self.kind == "single" or not all(self._split_file(split).is_file() for split in _SPLITS):
            return MAFW
        return compound(MAFW, (label for split in _SPLITS for _, label, _ in self._listed(split)))

    def deviations(self) -> list[str]:
        """As for every corpus, and the number of combinations."""
        found = super().deviations()
        joined = sum("_" in label for label in self.native.labels)
        if self.kind == "compound" and joined != COMPOUND_CLASSES:
            found.append(f"{joined} combinations of emotions, published are {COMPOUND_CLASSES}")
        return found

    def published(self) -> dict[Split, Published]:
        """Clips of the set by split, and by class where that is known."""
        counts = (_SINGLE if self.kind == "single" else _COMPOUND)[self.fold]
        classes = _SINGLE_5 if self.kind == "single" and self.fold == 5 else {}
        by_class = {split: dict(zip(MAFW.labels, found, strict=True)) for split, found in classes.items()}
        return {s: Published(n, by_class.get(s)) for s, n in zip(_SPLITS, counts, strict=True)}

    def rows(self) -> Iterator[Row]:
        """The set's split files."""
        absent = [str(self._split_file(split)) for split in _SPLITS if not self._split_file(split).is_file()]
        if absent or not self._places.there:
            listed = "\n  ".join(str(self._split_file(split)) for split in _SPLITS)
            raise CorpusMissing(
                f"MAFW is not at {self.root}: expected there are the splits\n  {listed}\n(the spaces belong to the names), lines "
                f"such as '00025.mp4 anger', and the clips in {' or '.join(self._places.folders)}.\n{self.how_to_get}. Set "
                "data.root to where it is (or ERV_DATA to the folder above)"
            )
        for split in _SPLITS:
            for clip, label, source in self._listed(split):
                sheet = self._spreadsheet.get(clip)
                if sheet is not None and self.native.normalise(sheet) != self.native.normalise(label):
                    raise CorpusError(
                        f"{source}: {clip} is {label} here and {sheet} in {_LABEL_FILES[self.kind]}; one of the files is of "
                        "another release: fetch both again, or remove the spreadsheet"
                    )
                yield Row(Path(clip).stem, self._places.find(Path(clip).stem), label, split, source)

    def _split_file(self, split: str) -> Path:
        return Path(self.root) / _SPLIT_FILE.format(kind=self.kind, fold=self.fold, split=split)

    def _listed(self, split: Split) -> Iterator[tuple[str, str, str]]:
        """(Clip, label, place) of each line."""
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
    def _spreadsheet(self) -> dict[str, str]:
        """Clip -> label as the spreadsheet has it, "1,6" as anger_sadness; empty without the file."""
        file = Path(self.root) / _LABEL_FILES[self.kind]
        if not file.is_file():
            return {}
        found = {}
        try:
            with ZipFile(file) as parts:
                size = sum(part.file_size for part in parts.infolist())
        except BadZipFile as error:
            raise CorpusError(f"{file} is no spreadsheet ({error}); fetch it again") from error
        if size > _MOST_BYTES:
            raise CorpusError(f"{file} unpacks to {size:,} bytes, at most {_MOST_BYTES:,} are read; replace it")
        sheet = load_workbook(file, read_only=True, data_only=True).worksheets[0]
        for number, cells in enumerate(
            sheet.iter_rows(min_row=_HEADER_ROWS + 1, values_only=True), start=_HEADER_ROWS + 1
        ):
            if not cells or cells[0] is None:
                continue
            ids = str(cells[_LABEL_COLUMN] if len(cells) > _LABEL_COLUMN else "").split(",")
            if not all(part.strip() in _IDS for part in ids):
                raise CorpusError(
                    f"{file}, row {number}: column {_LABEL_COLUMN + 1} holds label ids from 1 to 11, got {','.join(ids)!r}"
                )
            found[str(cells[0]).strip()] = "_".join(_IDS[part.strip()] for part in ids)
        return found

    @cached_property
    def _places(self) -> Places:
        return Places(self.root, (self.clips_in,) if self.clips_in else _CLIPS)
