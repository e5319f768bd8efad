"""Finding files: by name without suffix, in whichever of several folders, never outside the corpus."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from erv.data.datasets.base import CorpusError

VIDEO_SUFFIXES = (".mp4", ".avi", ".mkv", ".mov", ".webm", ".m4v", ".mpg", ".mpeg", ".flv", ".wmv", ".gif")
AUDIO_SUFFIXES = (".wav", ".flac", ".mp3", ".m4a", ".ogg")


class Places:
    """Files and folders of pictures in `folders` below `root`, by name without suffix, in any case and Unicode form.

    The first folder that has a name wins. An archive from another system may spell "é" in two characters: both are found.
    """

    def __init__(self, root: str | Path, folders: Sequence[str], suffixes: Sequence[str] = VIDEO_SUFFIXES) -> None:
        self.root, self.folders, self.suffixes = Path(root), tuple(folders), tuple(suffixes)
        self._found: dict[str, str] | None = None

    @property
    def there(self) -> bool:
        """Whether any of the folders exists."""
        return any((self.root / folder).is_dir() for folder in self.folders)

    def find(self, *names: str) -> str:
        """The file under the first of `names` that is there; where it should have been, otherwise."""
        if self._found is None:
            self._found = {}
            for folder in reversed(self.folders):
                self._found |= self._listed(self.root / folder)
        found = next((self._found[key] for name in names if (key := _spelled(name)) in self._found), None)
        home = next((f for f in self.folders if (self.root / f).is_dir()), self.folders[0])
        return found or str(self.root / home / f"{names[0]}{self.suffixes[0]}")

    def _listed(self, folder: Path) -> dict[str, str]:
        if not folder.is_dir():
            return {}
        with os.scandir(folder) as entries:
            found = {
                _spelled(Path(e.name).stem if e.is_file() else e.name): e.path
                for e in sorted(entries, key=lambda e: e.name)
                if e.is_dir() or Path(e.name).suffix.lower() in self.suffixes
            }
        return found


def inside(root: str | Path, path: str, source: str) -> Path:
    """`path` below `root`; CorpusError for one that leads out of it, naming the row `source`."""
    base = os.path.normpath(os.path.abspath(root))
    full = os.path.normpath(os.path.join(base, path))
    if os.path.commonpath([base, full]) != base:
        raise CorpusError(
            f"{source}: {path!r} lies outside data.root={root}; correct the row, or set data.root to a folder that holds "
            "all clips"
        )
    return Path(full)


def existing(path: Path) -> Path:
    """`path` as the file system spells it, where its name differs in Unicode form only."""
    if path.exists() or not path.parent.is_dir():
        return path
    same = {_spelled(entry.name): entry for entry in path.parent.iterdir()}
    return same.get(_spelled(path.name), path)


def _spelled(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
