"""Finding clips' files: by name without suffix, in whichever of several folders, never outside the data set."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from erv.data.datasets.base import CorpusError

VIDEO_SUFFIXES = (".mp4", ".avi", ".mkv", ".mov", ".webm", ".m4v", ".mpg", ".mpeg", ".flv", ".wmv", ".gif")
AUDIO_SUFFIXES = (".wav", ".flac", ".mp3", ".m4a", ".ogg")


class FileIndex:
    """Files, and folders of frames, in `folders` below `root`, by name without suffix, in any case and Unicode form.

    The first folder that has a name wins. An archive from another system may spell "é" as two characters, which is the same
    name here. Folders are listed once, on the first look-up.
    """

    def __init__(self, root: str | Path, folders: Sequence[str], suffixes: Sequence[str] = VIDEO_SUFFIXES) -> None:
        self.root, self.folders, self.suffixes = Path(root), tuple(folders), tuple(suffixes)

    @property
    def exists(self) -> bool:
        """Whether any of the folders exists."""
        return any((self.root / folder).is_dir() for folder in self.folders)

    def path_of(self, *names: str) -> str:
        """The file under the first of `names` that has one; without any, where the first should have been."""
        for name in names:
            if (path := self._paths.get(_normalised(name))) is not None:
                return path
        folder = next((f for f in self.folders if (self.root / f).is_dir()), self.folders[0])
        return str(self.root / folder / f"{names[0]}{self.suffixes[0]}")

    @cached_property
    def _paths(self) -> dict[str, str]:
        """Normalised name -> path."""
        paths: dict[str, str] = {}
        for folder in reversed(self.folders):  # the first folder is entered last, and overwrites
            if not (self.root / folder).is_dir():
                continue
            with os.scandir(self.root / folder) as entries:
                for entry in sorted(entries, key=lambda e: e.name):
                    if entry.is_dir() or Path(entry.name).suffix.lower() in self.suffixes:
                        name = Path(entry.name).stem if entry.is_file() else entry.name
                        paths[_normalised(name)] = entry.path
        return paths


def path_below(root: str | Path, path: str, source: str) -> Path:
    """`path` below `root`; CorpusError for one that leads out of it, naming the row `source`.

    Symbolic links are not resolved: data sets are often linked into place.
    """
    base = os.path.normpath(os.path.abspath(root))
    full = os.path.normpath(os.path.join(base, path))
    if os.path.commonpath([base, full]) != base:
        raise CorpusError(
            f"{source}: {path!r} lies outside data.root={root}; correct the row, or set data.root to a folder that holds "
            "all clips"
        )
    return Path(full)


def as_on_disk(path: Path) -> Path:
    """`path` as the file system spells it, where its name differs in case or Unicode form only."""
    if path.exists() or not path.parent.is_dir():
        return path
    siblings = {_normalised(entry.name): entry for entry in path.parent.iterdir()}
    return siblings.get(_normalised(path.name), path)


def _normalised(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
