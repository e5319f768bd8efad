"""The tower cache: outputs of the frozen vision and audio towers, computed once per data set.

Whisper-large-v3's encoder costs more per clip than the 0.5B language model's own share (spec: grpo-engine.md), and
it never changes. The key of an entry holds the clip's bytes, the towers' weights and the preprocessing, so a stale entry
cannot exist. Features are kept in half precision.
"""

from __future__ import annotations

import hashlib
import shutil
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from filelock import FileLock
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from erv.utils.io import replacing

Features = dict[str, Tensor]
_SPARE_BYTES = 10**9  # of the disk, left to everything else


class CacheTooLarge(Exception):
    """The features would not fit on the disk; the message gives sizes and ways out."""


class TowerCache:
    """Features of clips under `root/<hash of towers and preprocessing>/`, in shards that any number of processes add to.

    `towers` identifies the towers' weights, `preprocessing` everything between the file and the towers. A key is the sha256 of
    a clip's bytes. A shard is complete or absent, whenever its writer is killed.
    """

    def __init__(self, root: str, towers: str, preprocessing: str) -> None:
        digest = hashlib.sha256(f"{towers}\n{preprocessing}".encode()).hexdigest()[:16]
        self.folder = Path(root) / digest
        self._entries: dict[str, tuple[Path, list[str]]] = {}
        self._seen: set[Path] = set()
        self._opened: dict[Path, Any] = {}

    def __getstate__(self) -> dict[str, Any]:
        """A process that reads along opens the shards itself."""
        return {**self.__dict__, "_opened": {}}

    def missing(self, keys: Iterable[str]) -> list[str]:
        """Those of `keys` that have no entry, each once; what other processes wrote meanwhile counts."""
        self._scan()
        return [key for key in dict.fromkeys(keys) if key not in self._entries]

    def read(self, key: str) -> Features:
        """The features of a clip, half precision, mapped from the shard. Raises LookupError when there are none."""
        if key not in self._entries:
            self._scan()
        if key not in self._entries:
            raise LookupError(f"{self.folder} has no tower features of the clip with sha256 {key}; build them first")
        shard, names = self._entries[key]
        if shard not in self._opened:
            self._opened[shard] = safe_open(shard, framework="pt").__enter__()
        return {name: self._opened[shard].get_tensor(f"{key}/{name}") for name in names}

    def write(self, features: dict[str, Features]) -> None:
        """Add a shard with the features of these clips."""
        tensors = {
            f"{key}/{name}": value.half().contiguous()
            for key, found in features.items()
            for name, value in found.items()
        }
        self.folder.mkdir(parents=True, exist_ok=True)
        target = self.folder / f"{uuid.uuid4().hex}.safetensors"
        with replacing(target) as temporary:
            save_file(tensors, temporary)

    def claim(self, part: int, parts: int, wait: bool = False) -> FileLock:
        """The right to make part number `part` of `parts`; raises filelock.Timeout at once while another process has it.

        A process that dies gives its claim back.
        """
        place = self.folder / "claims"
        place.mkdir(parents=True, exist_ok=True)
        return FileLock(place / f"{part}-{parts}.lock", timeout=-1 if wait else 0)

    def require_space(self, clips: int, bytes_each: int) -> None:
        """Raise CacheTooLarge when the features of `clips` more clips would fill the disk."""
        self.folder.mkdir(parents=True, exist_ok=True)
        needed, free = clips * bytes_each, shutil.disk_usage(self.folder).free
        if needed + _SPARE_BYTES > free:
            raise CacheTooLarge(
                f"the tower outputs of {clips:,} clips take {needed / 1e9:,.1f} GB, {self.folder.parent} has {free / 1e9:,.1f} "
                "GB free; set paths.cache (ERV_CACHE) to a larger disk, or media.cache_towers=false to run the towers for every "
                "batch"
            )

    def _scan(self) -> None:
        for shard in sorted(self.folder.glob("*.safetensors")) if self.folder.is_dir() else []:
            if shard not in self._seen:
                with safe_open(shard, framework="pt") as file:
                    for entry in file.keys():  # noqa: SIM118 - a safetensors file is no mapping
                        key, name = entry.split("/")
                        self._entries.setdefault(key, (shard, []))
                        if self._entries[key][0] == shard:
                            self._entries[key][1].append(name)
                self._seen.add(shard)
