"""The cache of tower features: outputs of the frozen vision and audio towers, computed once per data set.

Whisper-large-v3's encoder costs more per clip than the 0.5B language model's share (spec: grpo-engine.md), and it never
changes. An entry's key holds the clip's bytes, the towers' weights and the preprocessing, so a stale entry cannot be read.
Features are stored in half precision.
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

from erv.errors import UserError
from erv.utils.io import replacing

Features = dict[str, Tensor]  # modality -> tower output
_SPARE_BYTES = 10**9  # of the disk, left free


class CacheTooLarge(UserError):
    """The features would not fit on the disk; the message gives sizes and ways out."""


class FeatureCache:
    """Tower features of clips, in shards that any number of processes add to at once.

    The shards lie in `root/<hash of towers and preprocessing>/`. A shard is complete or absent, whenever its writer is killed.

    Args:
        root: Folder of the caches.
        towers: Identity of the towers' weights.
        preprocessing: Identity of everything between the file and the towers.
    """

    def __init__(self, root: str, towers: str, preprocessing: str) -> None:
        digest = hashlib.sha256(f"{towers}\n{preprocessing}".encode()).hexdigest()[:16]
        self.folder = Path(root) / digest
        self._entries: dict[str, tuple[Path, list[str]]] = {}  # clip's hash -> its shard and modalities
        self._listed: set[Path] = set()  # shards whose entries are in _entries
        self._open_shards: dict[Path, Any] = {}

    def missing(self, keys: Iterable[str]) -> list[str]:
        """The `keys` (sha256 of clips' bytes) without an entry, each once; other processes' new shards count."""
        self._list_new_shards()
        return [key for key in dict.fromkeys(keys) if key not in self._entries]

    def read(self, key: str) -> Features:
        """The features of a clip, half precision, memory-mapped. Raises LookupError when it has no entry."""
        if key not in self._entries:
            self._list_new_shards()
        if key not in self._entries:
            raise LookupError(f"{self.folder} has no tower features of the clip with sha256 {key}; build them first")
        shard, names = self._entries[key]
        if shard not in self._open_shards:
            self._open_shards[shard] = safe_open(shard, framework="pt").__enter__()
        return {name: self._open_shards[shard].get_tensor(f"{key}/{name}") for name in names}

    def write(self, features: dict[str, Features]) -> None:
        """Add a shard with the features of some clips, by their keys."""
        tensors = {
            f"{key}/{name}": value.half().contiguous()
            for key, modalities in features.items()
            for name, value in modalities.items()
        }
        self.folder.mkdir(parents=True, exist_ok=True)
        target = self.folder / f"{uuid.uuid4().hex}.safetensors"  # no other writer has this name
        with replacing(target) as temporary:
            save_file(tensors, temporary)

    def claim(self, part: int, parts: int, wait: bool = False) -> FileLock:
        """The lock to hold while making part number `part` of `parts`; the system releases it when the process dies.

        Without `wait`, taking it raises filelock.Timeout at once while another process holds it.
        """
        folder = self.folder / "claims"
        folder.mkdir(parents=True, exist_ok=True)
        return FileLock(folder / f"{part}-{parts}.lock", timeout=-1 if wait else 0)

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

    def _list_new_shards(self) -> None:
        """Enter the clips of shards that were written since the last call. A clip in two shards is read from the first."""
        for shard in sorted(self.folder.glob("*.safetensors")) if self.folder.is_dir() else []:
            if shard in self._listed:
                continue
            with safe_open(shard, framework="pt") as file:
                for tensor in file.keys():  # noqa: SIM118 - a safetensors file is no mapping
                    key, name = tensor.split("/")
                    first_shard, names = self._entries.setdefault(key, (shard, []))
                    if first_shard == shard:
                        names.append(name)
            self._listed.add(shard)
