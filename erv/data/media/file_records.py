"""Records of media files that outlive a run: their hashes, and what decoding found in them.

They are append-only journals, so that any number of processes, on any number of machines, may write at once and be killed
while they do.
"""

from __future__ import annotations

import hashlib
import json
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

from erv.data.media.decode import MediaInfo
from erv.data.media.frames import image_files
from erv.data.media.settings import MediaSettings
from erv.types import MediaSpec

# A file that was changed less than this long ago may change again within the same tick of the file system's clock.
_CLOCK_TICK_S = 2.0


class Journal:
    """Rows of JSON in a folder; every process appends to its own file, and reads the files of all."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._output: TextIO | None = None
        self._offsets: dict[Path, int] = {}  # bytes that were read of each file

    def rows(self) -> Iterator[dict[str, Any]]:
        """The rows that any process has written since the last call."""
        for file in sorted(self.folder.glob("*.jsonl")) if self.folder.is_dir() else []:
            with file.open("rb") as content:
                content.seek(self._offsets.get(file, 0))
                for line in content:
                    if not line.endswith(b"\n"):  # half written; it is read in a later call
                        break
                    self._offsets[file] = self._offsets.get(file, 0) + len(line)
                    try:
                        yield json.loads(line)
                    except ValueError:  # a line that was cut when a process was killed, with the next one joined to it
                        continue

    def append(self, row: Mapping[str, Any]) -> None:
        """Write a row; other processes can read it at once."""
        if self._output is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._output = (self.folder / f"{uuid.uuid4().hex}.jsonl").open("a", encoding="utf-8")
        self._output.write(json.dumps(row, ensure_ascii=False) + "\n")
        self._output.flush()


class FileHashes:
    """sha256 of clips' bytes. A file is read again only when its size, inode or one of its times has changed."""

    def __init__(self, folder: str | Path) -> None:
        self._journal = Journal(folder)
        self._hashes: dict[str, tuple[list[int], str]] = {}  # path -> state of the file, and hash

    def of_clip(self, video: str, audio: str | None = None) -> str | None:
        """The hash of a clip with its sound in `audio` or in `video`; None when neither file exists."""
        parts = [self._of_path(path) for path in (video, audio) if path is not None]
        if not any(parts):
            return None
        return parts[0] if len(parts) == 1 else hashlib.sha256("/".join(map(str, parts)).encode()).hexdigest()

    def _of_path(self, path: str) -> str | None:
        """The hash of a file, or of the names and hashes of a folder's images."""
        if Path(path).is_dir():
            images = [(file.name, self._of_file(file)) for file in image_files(Path(path))]
            return hashlib.sha256(json.dumps(images).encode()).hexdigest()
        return self._of_file(Path(path))

    def _of_file(self, file: Path) -> str | None:
        try:
            stat = file.stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        state = [stat.st_size, stat.st_ino, stat.st_mtime_ns, stat.st_ctime_ns]
        path = str(file.absolute())
        if path not in self._hashes:  # another process may have hashed it
            self._hashes |= {row["path"]: (row["state"], row["sha256"]) for row in self._journal.rows()}
        if path in self._hashes and self._hashes[path][0] == state:
            return self._hashes[path][1]
        with file.open("rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
        if time.time() - max(stat.st_mtime, stat.st_ctime) > _CLOCK_TICK_S:
            self._hashes[path] = (state, digest)
            self._journal.append({"path": path, "state": state, "sha256": digest})
        return digest


def fingerprint(clips: Iterable[tuple[str, str | None]]) -> str:
    """sha256 of a set of clips, each as (name, hash of its bytes): equal for equal data in any order."""
    return hashlib.sha256(json.dumps(sorted(clips, key=str)).encode()).hexdigest()


class MediaInfoStore:
    """What clips' files hold, by the hash of their bytes, for one way of decoding."""

    def __init__(self, folder: str | Path, decoding: str) -> None:
        """`decoding` holds everything that the information depends on beside the bytes."""
        self._journal = Journal(Path(folder) / hashlib.sha256(decoding.encode()).hexdigest()[:16])
        self._infos: dict[str, MediaInfo] = {}

    @classmethod
    def of(cls, settings: MediaSettings, spec: MediaSpec) -> MediaInfoStore:
        """The store for clips that are decoded as `spec` says, under these settings."""
        # The repr of Limits is part of the key: renaming it or a field would make every clip be decoded again.
        return cls(f"{settings.cache}/facts", f"{spec.num_frames} {spec.modalities} {settings.limits}")

    def get(self, keys: Iterable[str]) -> dict[str, MediaInfo]:
        """The information about those of `keys` that have been decoded."""
        self._infos |= {row["key"]: MediaInfo.from_row(row["facts"]) for row in self._journal.rows()}
        return {key: self._infos[key] for key in keys if key in self._infos}

    def put(self, key: str, info: MediaInfo) -> None:
        """Record what decoding found, on disk too unless another attempt may find something else."""
        self._infos[key] = info
        if info.settled:
            self._journal.append({"key": key, "facts": info.row()})
