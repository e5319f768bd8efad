"""What is known about files: their hashes, and the facts that decoding found. Append-only, so that any number of processes,
on any number of machines, may write at once and be killed while they do."""

from __future__ import annotations

import hashlib
import json
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

from erv.data.media.decode import Facts
from erv.data.media.frames import frame_files
from erv.data.media.settings import MediaSettings
from erv.types import Wanted

_RACY_S = 2.0  # a file that was just written may be written again within the same tick of the file system's clock


class Journal:
    """Rows of JSON below `folder`; every process appends to a file of its own and reads those of all."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._own: TextIO | None = None
        self._read: dict[Path, int] = {}

    def rows(self) -> Iterator[dict[str, Any]]:
        """The rows that were written since the last call, by anybody. A line cut by a killed process is passed over."""
        for file in sorted(self.folder.glob("*.jsonl")) if self.folder.is_dir() else []:
            with file.open("rb") as content:
                content.seek(self._read.get(file, 0))
                for line in content:
                    if not line.endswith(b"\n"):
                        break
                    self._read[file] = self._read.get(file, 0) + len(line)
                    try:
                        yield json.loads(line)
                    except ValueError:  # two halves of lines, where a process was killed and its file went on
                        continue

    def append(self, row: Mapping[str, Any]) -> None:
        """Write a row; it is there for others at once."""
        if self._own is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._own = (self.folder / f"{uuid.uuid4().hex}.jsonl").open("a", encoding="utf-8")
        self._own.write(json.dumps(row, ensure_ascii=False) + "\n")
        self._own.flush()


class Hashes:
    """sha256 of clips' bytes; a file is read again only when its size, inode or a time of its changed."""

    def __init__(self, folder: str | Path) -> None:
        self._journal = Journal(folder)
        self._known: dict[str, tuple[list[int], str]] = {}

    def of(self, video: str, audio: str | None = None) -> str | None:
        """The hash of a clip whose sound is in `audio`, or with its picture; None when none of the files is there."""
        parts = [self._one(path) for path in (video, audio) if path is not None]
        if not any(parts):
            return None
        return parts[0] if len(parts) == 1 else hashlib.sha256("/".join(map(str, parts)).encode()).hexdigest()

    def _one(self, path: str) -> str | None:
        place = Path(path)
        if place.is_dir():
            names = [(file.name, self._file(file)) for file in frame_files(place)]
            return hashlib.sha256(json.dumps(names).encode()).hexdigest()
        return self._file(place)

    def _file(self, file: Path) -> str | None:
        try:
            found = file.stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        state = [found.st_size, found.st_ino, found.st_mtime_ns, found.st_ctime_ns]
        key = str(file.absolute())
        if key not in self._known:
            self._known |= {row["path"]: (row["state"], row["sha256"]) for row in self._journal.rows()}
        known = self._known.get(key)
        if known is not None and known[0] == state:
            return known[1]
        with file.open("rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
        if time.time() - max(found.st_mtime, found.st_ctime) > _RACY_S:
            self._known[key] = (state, digest)
            self._journal.append({"path": key, "state": state, "sha256": digest})
        return digest


def fingerprint(clips: Iterable[tuple[str, str | None]]) -> str:
    """sha256 of clips by (name, hash of the bytes), whatever their order: the same data have the same."""
    return hashlib.sha256(json.dumps(sorted(clips, key=str)).encode()).hexdigest()


class FactBook:
    """Facts by the hash of a clip's bytes; `asked` is all that they depend on beside the bytes."""

    def __init__(self, folder: str | Path, asked: str) -> None:
        self._journal = Journal(Path(folder) / hashlib.sha256(asked.encode()).hexdigest()[:16])
        self._known: dict[str, Facts] = {}

    @classmethod
    def of(cls, settings: MediaSettings, wanted: Wanted) -> FactBook:
        """The book for what is wanted of clips under these settings."""
        return cls(f"{settings.cache}/facts", f"{wanted.num_frames} {wanted.modalities} {settings.limits}")

    def get(self, keys: Iterable[str]) -> dict[str, Facts]:
        """What is known of `keys`."""
        self._known |= {row["key"]: Facts.from_row(row["facts"]) for row in self._journal.rows()}
        return {key: self._known[key] for key in keys if key in self._known}

    def put(self, key: str, facts: Facts) -> None:
        """Remember what decoding found, unless another try may find something else."""
        self._known[key] = facts
        if facts.settled:
            self._journal.append({"key": key, "facts": facts.row()})
