"""EMER and MERR: descriptions of why a clip of MER2023 shows an emotion (spec: datasets.md).

Both label clips of one data set, so their clips share its name: text about a clip in one of them is known to be about the
clip of the other.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from erv.data.datasets.base import CorpusError, CorpusMissing
from erv.data.datasets.file_corpus import FileCorpus, Published, Row
from erv.data.datasets.file_index import Places
from erv.taxonomy import MER, MERR, Taxonomy
from erv.types import Split
from erv.utils.sanitize import parse_json

_CLIPS = ("video", "videos", "clips", "train", "test3")
_HOW = "the clips are those of MER2023, given on request by its authors (lianzheng2016@ia.ac.cn); the descriptions are public"


@dataclass(kw_only=True)
class EMERCorpus(FileCorpus):
    """EMER's first `release` (100 clips with a label) or second (332, without one), in English or Chinese.

    The second release gets its labels from `labels`, a CSV with name and label (MER2023's train-label.csv: name, discrete).
    EMER teaches SFT, so it has no test split: it would be no clean one.
    """

    name: ClassVar[str] = "mer2023"
    own: ClassVar[Taxonomy] = MER
    how_to_get: ClassVar[str] = f"EMER is at https://github.com/zeroQiaoba/AffectGPT; {_HOW}"

    release: Literal[1, 2] = 1
    language: Literal["en", "zh"] = "en"
    labels: str | None = None
    clips_in: str | None = None

    def published(self) -> dict[Split, Published]:
        """Rows of the release."""
        return {"train": Published(100 if self.release == 1 else 332)}

    def rows(self) -> Iterator[Row]:
        """The release's file."""
        english = self.language == "en"
        if self.release == 1:
            names, text = ("gt-eng.csv" if english else "gt-chi.csv", "dataset-v1"), "reasons"
        else:
            names, text = ("final-EMER-reason.csv", "dataset-v2"), "english" if english else "chinese"
        file = self._found(*names)
        places = Places(self.root, (self.clips_in,) if self.clips_in else _CLIPS)
        labels = self._labels() if self.release == 2 else {}
        for number, line in _lines(file):
            source = f"{file}:{number}"
            clip = (line.get("names") or line.get("name") or "").strip()
            label = line.get("emotions") if self.release == 1 else labels.get(clip)
            if not clip or not label or not line.get(text):
                what = "names, emotions, reasons" if self.release == 1 else f"name, {text}, and a label in data.labels"
                raise CorpusError(
                    f"{source}: a row needs {what}; got { ({k: (v or '')[:40] for k, v in line.items() if k}) }"
                )
            rationale = " ".join(line[text].split())
            yield Row(clip, places.find(clip), label, "train", source, rationale, language=self.language)

    def _found(self, name: str, folder: str) -> Path:
        candidates = [Path(self.root) / name, Path(self.root) / folder / name, Path(self.root) / "EMER" / folder / name]
        found = next((file for file in candidates if file.is_file()), None)
        if found is None:
            raise CorpusMissing(
                f"EMER (release {self.release}) is not at {self.root}: {name} is expected there or in {folder}/, the clips in "
                f"{' or '.join(_CLIPS)}. {self.how_to_get}. Set data.root to where it is"
            )
        return found

    def _labels(self) -> dict[str, str]:
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
            (row.get("name") or "").strip(): row.get("label") or row.get("discrete") or "" for _, row in _lines(file)
        }


@dataclass(kw_only=True)
class MERRCorpus(FileCorpus):
    """MERR's fine (4,487 clips, a reasoned description) or coarse `grain` (28,618, a caption), with its pseudo-labels."""

    name: ClassVar[str] = "mer2023"
    own: ClassVar[Taxonomy] = MERR
    how_to_get: ClassVar[str] = f"MERR is at https://github.com/ZebangCheng/Emotion-LLaMA; {_HOW}"

    grain: Literal["fine", "coarse"] = "fine"
    clips_in: str | None = None

    def published(self) -> dict[Split, Published]:
        """Entries of the file."""
        return {"train": Published(4487 if self.grain == "fine" else 28618)}

    def rows(self) -> Iterator[Row]:
        """The file's entries."""
        file = Path(self.root) / f"MERR_{self.grain}_grained.json"
        if not file.is_file():
            raise CorpusMissing(
                f"MERR ({self.grain}) is not at {self.root}: {file.name} is expected there, the clips (.avi or .mp4) in "
                f"{' or '.join(_CLIPS)}. {self.how_to_get}. Set data.root to where it is"
            )
        key = "smp_reason_caption" if self.grain == "fine" else "caption"
        places = Places(self.root, (self.clips_in,) if self.clips_in else _CLIPS)
        for clip, entry in _entries(file).items():
            source = f"{file}: {clip}"
            if not entry.get("pseu_emotion"):
                raise CorpusError(f"{source}: an entry needs pseu_emotion, its label; fetch the file again")
            rationale = " ".join(str(entry.get(key) or "").split()) or None
            yield Row(clip, places.find(clip), str(entry["pseu_emotion"]), "train", source, rationale)


def _entries(file: Path) -> dict[str, Mapping[str, Any]]:
    try:
        found = parse_json(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CorpusError(f"{file}: is no JSON ({error}); fetch it again") from error
    if not isinstance(found, dict):
        raise CorpusError(
            f"{file}: an object with one entry per clip is expected, got a {type(found).__name__}; fetch it again"
        )
    return found


def _lines(file: Path) -> Iterator[tuple[int, dict[str, str]]]:
    with file.open(newline="", encoding="utf-8-sig") as content:
        reader = csv.DictReader(content)
        for row in reader:
            yield reader.line_num, row
