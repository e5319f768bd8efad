"""EMER and MERR: descriptions of why a clip of MER2023 shows an emotion (spec: datasets.md).

Both annotate clips of one data set, so their clips share its name: text about a clip in one of them is recognised as text
about the same clip in the other.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from erv.data.datasets.base import CorpusError, CorpusMissing, PublishedCounts, Row
from erv.data.datasets.file_corpus import FileCorpus
from erv.data.datasets.file_index import FileIndex
from erv.taxonomy import MER, MERR, Taxonomy
from erv.types import Split
from erv.utils.sanitize import parse_json

_CLIP_FOLDERS = ("video", "videos", "clips", "train", "test3")
_CLIPS_ON_REQUEST = (
    "the clips are those of MER2023, given on request by its authors (lianzheng2016@ia.ac.cn); "
    "the descriptions are public"
)


@dataclass(kw_only=True)
class EMERCorpus(FileCorpus):
    """EMER in English or Chinese. It teaches SFT, so it has no test split: it would be no clean one.

    Args:
        release: 1 (100 clips with labels) or 2 (332 clips, whose labels `labels` gives).
        language: Of the descriptions, "en" or "zh".
        labels: For release 2, a CSV with name and label (MER2023's train-label.csv: name, discrete).
        clips_in: Folder of the clips below the root, where it is none of the usual ones.
    """

    name: ClassVar[str] = "mer2023"
    default_taxonomy: ClassVar[Taxonomy] = MER
    how_to_get: ClassVar[str] = f"EMER is at https://github.com/zeroQiaoba/AffectGPT; {_CLIPS_ON_REQUEST}"

    release: Literal[1, 2] = 1
    language: Literal["en", "zh"] = "en"
    labels: str | None = None
    clips_in: str | None = None

    def published_counts(self) -> dict[Split, PublishedCounts]:
        """Rows of the release."""
        return {"train": PublishedCounts(100 if self.release == 1 else 332)}

    def rows(self) -> Iterator[Row]:
        """The rows of the release's file."""
        english = self.language == "en"
        if self.release == 1:
            name, folder, text = "gt-eng.csv" if english else "gt-chi.csv", "dataset-v1", "reasons"
        else:
            name, folder, text = "final-EMER-reason.csv", "dataset-v2", "english" if english else "chinese"
        file = self._annotation_file(name, folder)
        clips = FileIndex(self.root, (self.clips_in,) if self.clips_in else _CLIP_FOLDERS)
        labels = self._label_of_clip() if self.release == 2 else {}
        for number, line in _read_csv(file):
            source = f"{file}:{number}"
            clip = (line.get("names") or line.get("name") or "").strip()
            label = line.get("emotions") if self.release == 1 else labels.get(clip)
            if not clip or not label or not line.get(text):
                needed = (
                    "names, emotions, reasons" if self.release == 1 else f"name, {text}, and a label in data.labels"
                )
                raise CorpusError(
                    f"{source}: a row needs {needed}; got { ({k: (v or '')[:40] for k, v in line.items() if k}) }"
                )
            rationale = " ".join(line[text].split())
            yield Row(clip, clips.path_of(clip), label, "train", source, rationale, language=self.language)

    def _annotation_file(self, name: str, folder: str) -> Path:
        for relative in (name, f"{folder}/{name}", f"EMER/{folder}/{name}"):
            if (file := Path(self.root) / relative).is_file():
                return file
        raise CorpusMissing(
            f"EMER (release {self.release}) is not at {self.root}: {name} is expected there or in {folder}/, the clips in "
            f"{' or '.join(_CLIP_FOLDERS)}. {self.how_to_get}. Set data.root to where it is"
        )

    def _label_of_clip(self) -> dict[str, str]:
        if self.labels is None:
            raise CorpusMissing(
                "EMER's second release has no labels: set data.labels to a CSV with the columns name and label or discrete "
                "(MER2023's train-label.csv), or use data=emer_cold_start, R1-Omni's version with labels"
            )
        file = Path(self.labels)
        if not file.is_file():
            raise CorpusMissing(
                f"data.labels={file} is not there; it is a CSV with the columns name and label or discrete"
            )
        return {
            (row.get("name") or "").strip(): row.get("label") or row.get("discrete") or "" for _, row in _read_csv(file)
        }


@dataclass(kw_only=True)
class MERRCorpus(FileCorpus):
    """MERR with its pseudo-labels.

    Args:
        grain: "fine" (4,487 clips with a reasoned description) or "coarse" (28,618 clips with a caption).
        clips_in: Folder of the clips below the root, where it is none of the usual ones.
    """

    name: ClassVar[str] = "mer2023"
    default_taxonomy: ClassVar[Taxonomy] = MERR
    how_to_get: ClassVar[str] = f"MERR is at https://github.com/ZebangCheng/Emotion-LLaMA; {_CLIPS_ON_REQUEST}"

    grain: Literal["fine", "coarse"] = "fine"
    clips_in: str | None = None

    def published_counts(self) -> dict[Split, PublishedCounts]:
        """Entries of the file."""
        return {"train": PublishedCounts(4487 if self.grain == "fine" else 28618)}

    def rows(self) -> Iterator[Row]:
        """The entries of the file."""
        file = Path(self.root) / f"MERR_{self.grain}_grained.json"
        if not file.is_file():
            raise CorpusMissing(
                f"MERR ({self.grain}) is not at {self.root}: {file.name} is expected there, the clips (.avi or .mp4) in "
                f"{' or '.join(_CLIP_FOLDERS)}. {self.how_to_get}. Set data.root to where it is"
            )
        try:
            entries = parse_json(file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise CorpusError(f"{file}: is no JSON ({error}); fetch it again") from error
        if not isinstance(entries, dict):
            raise CorpusError(
                f"{file}: an object with one entry per clip is expected, got a {type(entries).__name__}; fetch it again"
            )
        text = "smp_reason_caption" if self.grain == "fine" else "caption"
        clips = FileIndex(self.root, (self.clips_in,) if self.clips_in else _CLIP_FOLDERS)
        for clip, entry in entries.items():
            source = f"{file}: {clip}"
            if not entry.get("pseu_emotion"):
                raise CorpusError(f"{source}: an entry needs pseu_emotion, its label; fetch the file again")
            rationale = " ".join(str(entry.get(text) or "").split()) or None
            yield Row(clip, clips.path_of(clip), str(entry["pseu_emotion"]), "train", source, rationale)


def _read_csv(file: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """(Line number, {column: cell}) of each row; a row that spans lines has the number of its last one."""
    with file.open(newline="", encoding="utf-8-sig") as lines:
        reader = csv.DictReader(lines)
        for row in reader:
            yield reader.line_num, row
