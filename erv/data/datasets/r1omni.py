"""R1-Omni's instruction files: a video, a question and the answer that is taught or rewarded (spec: datasets.md)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from erv.data.datasets.base import CorpusError, CorpusMissing
from erv.data.datasets.file_corpus import FileCorpus, Published, Row
from erv.data.datasets.file_index import existing, inside
from erv.rationale import parse
from erv.taxonomy import MAFW, Taxonomy
from erv.types import Clip, Split
from erv.utils.sanitize import parse_json

_DATA_SETS = {"dfew": "dfew", "mafw": "mafw", "ravdess": "ravdess", "meld": "meld", "emer": "mer2023", "merr": "mer2023",
              "mer2023": "mer2023"}  # fmt: skip
_COLD_START = {"anger": 115, "happiness": 91, "anxiety": 59, "sadness": 43, "surprise": 23}


@dataclass(kw_only=True)
class InstructionCorpus(FileCorpus):
    """Instruction files `train` and `test` (JSON, below the root or by full path), of the SFT or the RL flavour.

    An entry is {"video": …, "conversations": [{"from": "human", …}, {"from": "gpt", "value": ANSWER}]}. ANSWER is
    `<think>…</think> <answer>label</answer>` for SFT, and the label alone for RL. The question is not used: it is the
    policy's. `release` names a published file whose counts are known.
    """

    name: ClassVar[str] = "instructions"
    own: ClassVar[Taxonomy] = MAFW
    how_to_get: ClassVar[str] = (
        "R1-Omni's files are at https://github.com/HumanMLLM/R1-Omni; the clips they name must be asked for from their authors"
    )

    train: str | None = None
    test: str | None = None
    release: Literal["emer_cold_start", "rl"] | None = None

    def published(self) -> dict[Split, Published]:
        """What is known of the named release: EMER's 331 clips for the cold start, or 16,702 for reinforcement learning."""
        known = {"emer_cold_start": Published(331, _COLD_START), "rl": Published(16702)}
        return {"train": known[self.release]} if self.release else {}

    def rows(self) -> Iterator[Row]:
        """The entries of the files."""
        splits: tuple[tuple[Split, str | None], ...] = (("train", self.train), ("test", self.test))
        if not any(file for _, file in splits):
            raise CorpusMissing(f"set data.train (and data.test) to an instruction file. {self.how_to_get}")
        for split, name in splits:
            if name is None:
                continue
            file = Path(self.root) / name
            if not file.is_file():
                raise CorpusMissing(
                    f"data.{split}: {file} is not there. {self.how_to_get}. Set data.root or data.{split}"
                )
            for number, entry in enumerate(_entries(file)):
                yield self._row(entry, split, f"{file}, entry {number}")

    def _row(self, entry: Any, split: Split, source: str) -> Row:
        try:
            video, answer = (
                str(entry["video"]),
                str(next(c["value"] for c in entry["conversations"] if c["from"] == "gpt")),
            )
        except (KeyError, TypeError, StopIteration) as error:
            raise CorpusError(
                f"{source}: an entry has video and conversations with a turn from gpt; got {str(entry)[:120]}"
            ) from error
        taught = parse(answer)
        return Row(
            video.rsplit(".", 1)[0], str(existing(inside(self.root, video, source))), taught.answer or answer, split, source,
            taught.think,
        )  # fmt: skip

    def identity(self, clip: Clip) -> str:
        """The clip as its own data set names it, where the path tells: DFEW/videos/00017.mp4 is dfew/17."""
        first, last = clip.id.split("/")[0].lower(), clip.id.split("/")[-1]
        data_set = _DATA_SETS.get(first)
        if data_set is None:
            return f"{self.name}/{clip.id}"
        return f"{data_set}/{last.lstrip('0') or '0'}" if data_set == "dfew" else f"{data_set}/{last}"


def _entries(file: Path) -> list[Any]:
    try:
        found = parse_json(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CorpusError(f"{file}: is no JSON ({error})") from error
    if not isinstance(found, list):
        raise CorpusError(f"{file}: a list of entries is expected, got a {type(found).__name__}")
    return found
