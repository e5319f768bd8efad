"""RAVDESS: 24 actors say or sing two sentences with eight emotions; everything is in the file's name (spec: datasets.md)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from erv.data.datasets.base import CorpusMissing
from erv.data.datasets.file_corpus import FileCorpus, Published, Row
from erv.data.datasets.file_index import VIDEO_SUFFIXES
from erv.taxonomy import RAVDESS, Taxonomy
from erv.types import Split

_ACTORS = 24
_FIELDS = 7  # of a name: modality, channel, emotion, intensity, statement, repetition, actor
_FULL = "01"  # modality: picture and sound; 02 is picture alone, 03 sound alone
_CHANNEL = {"speech": "01", "song": "02"}
_PUBLISHED = {"speech": 1440, "song": 1012}  # clips of each channel with picture and sound; actor 18 does not sing


@dataclass(kw_only=True)
class RAVDESSCorpus(FileCorpus):
    """The clips with picture and sound of one `channel`, wherever below the root; an actor is a subject.

    It has no published splits. Every actor is a test actor (the field tests transfer on it) unless `test_actors` lists some;
    then the others are trained on.
    """

    name: ClassVar[str] = "ravdess"
    own: ClassVar[Taxonomy] = RAVDESS
    how_to_get: ClassVar[str] = "RAVDESS is free under CC BY-NC-SA 4.0 at https://zenodo.org/records/1188976"

    channel: Literal["speech", "song"] = "speech"
    test_actors: Sequence[int] | None = None

    def __post_init__(self) -> None:
        """Check the actors."""
        super().__post_init__()
        odd = [actor for actor in self.test_actors or () if actor not in range(1, _ACTORS + 1)]
        if odd:
            raise ValueError(f"data.test_actors are numbers from 1 to {_ACTORS}, got {', '.join(map(str, odd))}")

    def published(self) -> dict[Split, Published]:
        """All clips of the channel, when all are tested on."""
        return {} if self.test_actors is not None else {"test": Published(_PUBLISHED[self.channel])}

    def rows(self) -> Iterator[Row]:
        """Every file whose name is one of RAVDESS' of this channel."""
        files = sorted(
            (f for f in Path(self.root).rglob("*-*-*-*-*-*-*") if f.suffix.lower() in VIDEO_SUFFIXES),
            key=lambda f: f.name,
        )
        chosen = [(file, parts) for file in files if self._is_ours(parts := file.stem.split("-"))]
        if not chosen:
            raise CorpusMissing(
                f"RAVDESS is not at {self.root}: expected are files such as Actor_01/01-01-03-01-01-01-01.mp4 anywhere below it "
                f"(modality 01, channel {_CHANNEL[self.channel]}); {self.how_to_get}. Set data.root to where it is"
            )
        for file, parts in chosen:
            actor = int(parts[6])
            split: Split = "test" if self.test_actors is None or actor in self.test_actors else "train"
            label = RAVDESS.labels[int(parts[2]) - 1]
            yield Row(file.stem, str(file), label, split, str(file), subject=f"{actor:02d}")

    def _is_ours(self, parts: list[str]) -> bool:
        whole = len(parts) == _FIELDS and all(len(part) == 2 and part.isdigit() for part in parts)
        return whole and parts[0] == _FULL and parts[1] == _CHANNEL[self.channel] and 1 <= int(parts[2]) <= 8
