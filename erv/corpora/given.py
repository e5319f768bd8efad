"""Clips that are no data set: files somebody has, without splits and mostly without labels."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from erv.corpora.base import CorpusMissing
from erv.emotions import of_labels
from erv.emotions import taxonomy as named
from erv.records import Clip, Split

VIDEO = (".mp4", ".avi", ".mkv", ".mov", ".webm", ".m4v")


class GivenFiles:
    """The clips `paths`, files or folders of files, of one `taxonomy` (a name or a list of labels; None: DFEW's).

    `gold` is the label of them all; it is "" in their records where nobody knows it.
    """

    name: ClassVar[str] = "files"

    def __init__(
        self, paths: Sequence[str], taxonomy: str | Sequence[str] | None = None, gold: str | None = None
    ) -> None:
        given = taxonomy or "dfew"
        self.taxonomy = named(given) if isinstance(given, str) else of_labels("given", tuple(given))
        self.gold = self.taxonomy.label_of(gold) if gold else ""
        self.paths = [Path(path) for path in paths]

    @property
    def root(self) -> str:
        """Where the command was started."""
        return "."

    def require(self) -> None:
        """Raise CorpusMissing for a path that is not there, or a folder without clips."""
        if not self.paths:
            raise CorpusMissing("no clip is given; name files or folders, such as clip.mp4 or clips/")
        for path in self.paths:
            if not path.exists():
                raise CorpusMissing(f"{path}: no such file or folder")
            if not self._files(path):
                raise CorpusMissing(f"{path}: no clip is in this folder (files that end in {', '.join(VIDEO)})")

    def prepare(self) -> None:
        """Nothing: the files are there."""

    def clips(self, split: Split) -> list[Clip]:
        """All clips, whatever the split; a clip is called by its path."""
        files = [file for path in self.paths for file in self._files(path)]
        return [Clip(str(file), str(file), self.gold, split, source="files") for file in dict.fromkeys(files)]

    def digest(self) -> str:
        """sha256 of the paths."""
        return hashlib.sha256("\n".join(map(str, self.paths)).encode()).hexdigest()

    def identity(self, clip: Clip) -> str:
        """The clip's path."""
        return f"{self.name}/{clip.id}"

    def warnings(self) -> list[str]:
        """None."""
        return []

    @staticmethod
    def _files(path: Path) -> list[Path]:
        if path.is_dir():
            return sorted(file for file in path.iterdir() if file.suffix.lower() in VIDEO)
        return [path]
