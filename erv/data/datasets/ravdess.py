"""RAVDESS: 24 actors say or sing two sentences with eight emotions; everything is in the file's name (spec: datasets.md)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from erv.data.datasets.base import CorpusMissing, PublishedCounts, Row
from erv.data.datasets.file_corpus import FileCorpus
from erv.data.datasets.file_index import VIDEO_SUFFIXES
from erv.taxonomy import RAVDESS, Taxonomy
from erv.types import Split

_ACTORS = 24
_FIELDS = 7  # of a name: modality, channel, emotion, intensity, statement, repetition, actor
_FULL_AV = "01"  # modality: picture and sound; 02 is picture alone, 03 sound alone
_CHANNEL = {"speech": "01", "song": "02"}
_PUBLISHED = {"speech": 1440, "song": 1012}  # clips of each channel with picture and sound; actor 18 does not sing


@dataclass(kw_only=True)
class RAVDESSCorpus(FileCorpus):
    """The clips of one channel with picture and sound, wherever below the root; an actor is a subject.

    RAVDESS has no published splits.

    Args:
        channel: "speech" or "song".
        test_actors: Actors (1 to 24) of the test split; the others are trained on. None: all, since the field uses RAVDESS
            to test transfer.
    """

    name: ClassVar[str] = "ravdess"
    default_taxonomy: ClassVar[Taxonomy] = RAVDESS
    how_to_get: ClassVar[str] = "RAVDESS is free under CC BY-NC-SA 4.0 at https://zenodo.org/records/1188976"

    channel: Literal["speech", "song"] = "speech"
    test_actors: Sequence[int] | None = None

    def __post_init__(self) -> None:
        """Check the actors."""
        super().__post_init__()
        unknown = [actor for actor in self.test_actors or () if actor not in range(1, _ACTORS + 1)]
        if unknown:
            raise ValueError(f"data.test_actors are numbers from 1 to {_ACTORS}, got {', '.join(map(str, unknown))}")

    def published_counts(self) -> dict[Split, PublishedCounts]:
        """All clips of the channel, when all actors are tested on."""
        return {} if self.test_actors is not None else {"test": PublishedCounts(_PUBLISHED[self.channel])}

    def rows(self) -> Iterator[Row]:
        """The files of this channel, by name."""
        files = sorted(
            (file for file in Path(self.root).rglob("*-*-*-*-*-*-*") if file.suffix.lower() in VIDEO_SUFFIXES),
            key=lambda file: file.name,
        )
        files = [file for file in files if self._is_in_channel(file.stem.split("-"))]
        if not files:
            raise CorpusMissing(
                f"RAVDESS is not at {self.root}: expected are files such as Actor_01/01-01-03-01-01-01-01.mp4 anywhere below it "
                f"(modality 01, channel {_CHANNEL[self.channel]}); {self.how_to_get}. Set data.root to where it is"
            )
        for file in files:
            codes = file.stem.split("-")
            emotion, actor = int(codes[2]), int(codes[6])
            split: Split = "test" if self.test_actors is None or actor in self.test_actors else "train"
            yield Row(
                id=file.stem,
                video=str(file),
                label=RAVDESS.labels[emotion - 1],
                split=split,
                source=str(file),
                subject=f"{actor:02d}",
            )

    def _is_in_channel(self, codes: list[str]) -> bool:
        well_formed = len(codes) == _FIELDS and all(len(code) == 2 and code.isdigit() for code in codes)
        return (
            well_formed
            and codes[0] == _FULL_AV
            and codes[1] == _CHANNEL[self.channel]
            and 1 <= int(codes[2]) <= len(RAVDESS.labels)
        )
