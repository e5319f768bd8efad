"""R1-Omni's instruction files: a video, a question and the answer that is taught or rewarded (spec: datasets.md)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from erv.data.datasets.base import CorpusError, CorpusMissing, PublishedCounts, Row
from erv.data.datasets.file_corpus import FileCorpus
from erv.data.datasets.file_index import as_on_disk, path_below
from erv.rationale import parse
from erv.taxonomy import MAFW, Taxonomy
from erv.types import Clip, Split
from erv.utils.sanitize import parse_json

_CORPUS_OF_FOLDER = {  # first folder of a video's path -> the name of the data set that the clip comes from
    "dfew": "dfew",
    "mafw": "mafw",
    "ravdess": "ravdess",
    "meld": "meld",
    "emer": "mer2023",
    "merr": "mer2023",
    "mer2023": "mer2023",
}
_PUBLISHED = {
    "emer_cold_start": PublishedCounts(
        331, {"anger": 115, "happiness": 91, "anxiety": 59, "sadness": 43, "surprise": 23}
    ),
    "rl": PublishedCounts(16702),
}


@dataclass(kw_only=True)
class InstructionCorpus(FileCorpus):
    """Instruction files in R1-Omni's form (JSON), of the SFT or the RL flavour.

    An entry is {"video": …, "conversations": [{"from": "human", …}, {"from": "gpt", "value": ANSWER}]}. ANSWER is
    `<think>…</think> <answer>label</answer>` for SFT, and the label alone for RL. The question is not used: it is the
    policy's.

    Args:
        train: File of the train split, below the root or by full path.
        test: File of the test split.
        release: A published file whose counts are known: "emer_cold_start" (EMER's 331 clips for the cold start) or "rl"
            (16,702 clips for reinforcement learning).
    """

    name: ClassVar[str] = "instructions"
    default_taxonomy: ClassVar[Taxonomy] = MAFW
    how_to_get: ClassVar[str] = (
        "R1-Omni's files are at https://github.com/HumanMLLM/R1-Omni; the clips they name must be asked for from their authors"
    )

    train: str | None = None
    test: str | None = None
    release: Literal["emer_cold_start", "rl"] | None = None

    def published_counts(self) -> dict[Split, PublishedCounts]:
        """Entries of the named release."""
        return {"train": _PUBLISHED[self.release]} if self.release else {}

    def rows(self) -> Iterator[Row]:
        """The entries of the files."""
        files: tuple[tuple[Split, str | None], ...] = (("train", self.train), ("test", self.test))
        if not any(name for _, name in files):
            raise CorpusMissing(f"set data.train (and data.test) to an instruction file. {self.how_to_get}")
        for split, name in files:
            if name is None:
                continue
            file = Path(self.root) / name
            if not file.is_file():
                raise CorpusMissing(
                    f"data.{split}: {file} is not there. {self.how_to_get}. Set data.root or data.{split}"
                )
            try:
                entries = parse_json(file.read_text(encoding="utf-8"))
            except ValueError as error:
                raise CorpusError(f"{file}: is no JSON ({error})") from error
            if not isinstance(entries, list):
                raise CorpusError(f"{file}: a list of entries is expected, got a {type(entries).__name__}")
            for number, entry in enumerate(entries):
                yield self._row(entry, split, f"{file}, entry {number}")

    def _row(self, entry: Any, split: Split, source: str) -> Row:
        try:
            video = str(entry["video"])
            answer = str(next(turn["value"] for turn in entry["conversations"] if turn["from"] == "gpt"))
        except (KeyError, TypeError, StopIteration) as error:
            raise CorpusError(
                f"{source}: an entry has video and conversations with a turn from gpt; got {str(entry)[:120]}"
            ) from error
        rationale = parse(answer)
        return Row(
            id=video.rsplit(".", 1)[0],
            video=str(as_on_disk(path_below(self.root, video, source))),
            label=rationale.answer or answer,
            split=split,
            source=source,
            rationale=rationale.think,
        )

    def identity(self, clip: Clip) -> str:
        """The clip as its data set names it, where the path tells: DFEW/videos/00017.mp4 is dfew/17."""
        folder, name = clip.id.split("/")[0].lower(), clip.id.split("/")[-1]
        corpus = _CORPUS_OF_FOLDER.get(folder)
        if corpus is None:
            return f"{self.name}/{clip.id}"
        return f"dfew/{name.lstrip('0') or '0'}" if corpus == "dfew" else f"{corpus}/{name}"
