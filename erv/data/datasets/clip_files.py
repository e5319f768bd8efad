"""Clips that are no data set: files somebody has, without splits and mostly without labels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from erv.data.datasets.base import CorpusMissing
from erv.data.datasets.file_index import VIDEO_SUFFIXES
from erv.taxonomy import named_taxonomy, of_labels
from erv.types import Clip, Split


class LooseClips:
    """The clips `paths`, files or folders of files; of one `taxonomy` (a name, or a list of labels).

    `gold` is the label of them all, "" in their records where it is unknown.
    """

    name: ClassVar[str] = "loose"
    root = "."

    def __init__(self, paths: Sequence[str], taxonomy: str | Sequence[str] = "dfew", gold: str | None = None) -> None:
        self.taxonomy = (
            named_taxonomy(taxonomy) if isinstance(taxonomy, str) else of_labels("loose_labels", tuple(taxonomy))
        )
        label = self.taxonomy.normalise(gold) or gold or ""
        if label:
            self.taxonomy.index(label)
        self.paths, self.gold = [Path(path) for path in paths], label

    def require(self) -> None:
        """Raise CorpusMissing for a path that is not there, or a folder without clips."""
        if not self.paths:
            raise CorpusMissing("no clip is given; name files or folders, such as clip.mp4 or clips/")
        for path in self.paths:
            if not path.exists():
                raise CorpusMissing(f"{path}: no such file or folder")
            if not self._files(path):
                raise CorpusMissing(
                    f"{path}: no clip is in this folder (files that end in {', '.join(VIDEO_SUFFIXES)})"
                )

    def prepare(self) -> None:
        """Nothing: the files are there."""

    def clips(self, split: Split) -> list[Clip]:
        """All clips, whatever the split; a clip is called by its path."""
        files = [file for path in self.paths for file in self._files(path)]
        return [Clip(str(file), str(file), self.gold, split, source="files") for file in dict.fromkeys(files)]

    def digest(self) -> str:
        """The paths and the label: such clips are no data set."""
        return f"{[str(path) for path in self.paths]} {self.gold}"

    def identity(self, clip: Clip) -> str:
        """Its path."""
        return clip.id

    def warnings(self) -> list[str]:
        """None."""
        return []

    @staticmethod
    def _files(path: Path) -> list[Path]:
        if path.is_dir():
            return sorted(file for file in path.iterdir() if file.suffix.lower() in VIDEO_SUFFIXES)
        return [path]
