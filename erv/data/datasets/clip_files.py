"""Clips that are no data set: files of a user, without splits and mostly without labels (`erv.predict`)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from erv.data.datasets.base import CorpusMissing
from erv.data.datasets.file_index import VIDEO_SUFFIXES
from erv.taxonomy import named_taxonomy, of_labels
from erv.types import Clip, Split


class ClipFiles:
    """The clips in `paths`, which are files or folders of files.

    Args:
        paths: Video files, or folders whose video files are taken (subfolders are not).
        taxonomy: A built-in name, or a list of labels.
        gold: The label of all clips; None where it is unknown, which is "" in their records.
    """

    name: ClassVar[str] = "loose"
    root = "."

    def __init__(self, paths: Sequence[str], taxonomy: str | Sequence[str] = "dfew", gold: str | None = None) -> None:
        if isinstance(taxonomy, str):
            self.taxonomy = named_taxonomy(taxonomy)
        else:
            self.taxonomy = of_labels("loose_labels", tuple(taxonomy))
        label = self.taxonomy.normalise(gold) or gold or ""
        if label:
            self.taxonomy.index(label)  # raises for a label that the taxonomy has not
        self.paths, self.gold = [Path(path) for path in paths], label

    def require(self) -> None:
        """Raise CorpusMissing for a path that does not exist, or a folder without clips."""
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
        """Do nothing: the files cannot be made."""

    def clips(self, split: Split) -> list[Clip]:
        """All clips, whatever the split; a clip's id is its path."""
        files = [file for path in self.paths for file in self._files(path)]
        return [Clip(str(file), str(file), self.gold, split, source="files") for file in dict.fromkeys(files)]

    def digest(self) -> str:
        """The paths and the label: unlike a data set's, the clips' location is part of what they are."""
        return f"{[str(path) for path in self.paths]} {self.gold}"

    def identity(self, clip: Clip) -> str:
        """The path: it has no data set to be named after."""
        return clip.id

    def warnings(self) -> list[str]:
        """Nothing is left out."""
        return []

    @staticmethod
    def _files(path: Path) -> list[Path]:
        if path.is_dir():
            return sorted(file for file in path.iterdir() if file.suffix.lower() in VIDEO_SUFFIXES)
        return [path]
