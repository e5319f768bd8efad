"""The tower cache: outputs of the frozen vision and audio towers, computed once per data set.

Whisper-large-v3's encoder costs more per clip than the 0.5B language model's own share (spec: grpo-engine.md), and
it never changes. The key of an entry holds the clip's bytes, the towers' weights and the preprocessing, so a stale entry
cannot exist. Features are kept in half precision.
"""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

Features = dict[str, Tensor]


class TowerCache:
    """Features of clips under `root/<hash of towers and preprocessing>/`, in shards that any number of processes add to.

    `towers` identifies the towers' weights, `preprocessing` everything between the file and the towers.
    """

    def __init__(self, root: str, towers: str, preprocessing: str) -> None:
        digest = hashlib.sha256(f"{towers}\n{preprocessing}".encode()).hexdigest()[:16]
        self.folder = Path(root) / digest
        self._shards: dict[str, Path] = {}
        self._seen: set[Path] = set()
        self._keys: dict[str, str] = {}

    def key(self, path: str) -> str:
        """sha256 of the clip's bytes."""
        if path not in self._keys:
            with open(path, "rb") as file:
                self._keys[path] = hashlib.file_digest(file, "sha256").hexdigest()
        return self._keys[path]

    def missing(self, paths: Sequence[str]) -> list[str]:
        """Those of `paths` that have no entry yet, each once."""
        self._scan()
        return [path for path in dict.fromkeys(paths) if self.key(path) not in self._shards]

    def build(
        self,
        paths: Sequence[str],
        encode: Callable[[list[str]], list[Features]],
        batch_size: int = 32,
        shard: int = 512,
    ) -> None:
        """Encode what is missing, `batch_size` clips at a time; a shard is complete or absent, whenever this is killed."""
        todo = self.missing(paths)
        pending: dict[str, Tensor] = {}
        for start in tqdm(range(0, len(todo), batch_size), desc="towers", unit="batch", disable=not todo):
            batch = todo[start : start + batch_size]
            for path, features in zip(batch, encode(batch), strict=True):
                pending |= {f"{self.key(path)}/{name}": value.half().contiguous() for name, value in features.items()}
            if start + batch_size >= len(todo) or (start // batch_size + 1) * batch_size % shard < batch_size:
                self._write(pending)
                pending = {}

    def load(self, paths: Sequence[str]) -> list[Features]:
        """The float32 features of each path; KeyError-free: a path without an entry is named with the remedy."""
        absent = self.missing(paths)
        if absent:
            raise LookupError(
                f"{len(absent)} clips have no tower features in {self.folder}, first {absent[0]}; build them"
            )
        by_shard: dict[Path, list[str]] = {}
        for path in dict.fromkeys(paths):
            by_shard.setdefault(self._shards[self.key(path)], []).append(path)
        found = {path: features for shard, group in by_shard.items() for path, features in self._read(shard, group)}
        return [found[path] for path in paths]

    def _read(self, shard: Path, paths: list[str]) -> Iterator[tuple[str, Features]]:
        with safe_open(shard, framework="pt") as file:
            names: dict[str, list[str]] = {}
            for entry in file.keys():  # noqa: SIM118 - a safetensors file is no mapping
                names.setdefault(entry.split("/")[0], []).append(entry)
            for path in paths:
                yield path, {e.split("/")[1]: file.get_tensor(e).float() for e in names[self.key(path)]}

    def _write(self, tensors: dict[str, Tensor]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        target = self.folder / f"{uuid.uuid4().hex}.safetensors"
        temporary = target.with_suffix(".tmp")
        save_file(tensors, temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(target)

    def _scan(self) -> None:
        for shard in sorted(self.folder.glob("*.safetensors")) if self.folder.is_dir() else []:
            if shard not in self._seen:
                with safe_open(shard, framework="pt") as file:
                    self._shards |= {entry.split("/")[0]: shard for entry in file.keys()}  # noqa: SIM118
                self._seen.add(shard)


def tensors_sha256(tensors: dict[str, Tensor]) -> str:
    """sha256 over names, shapes, dtypes and bytes of `tensors`: the identity of weights."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name}{tuple(value.shape)}{value.dtype}".encode())
        digest.update(value.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
