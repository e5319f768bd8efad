"""The checkpoints of a run's folder: which there are, and which one is whole. Loads no torch.

A checkpoint is `checkpoints/step-00000100.ckpt` with a manifest of the same name, `.json`, that is written after it: without one
it does not count.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path

from erv.errors import ConfigError
from erv.utils.io import TEMPORARY, file_sha256, write_json

_log = logging.getLogger(__name__)
FOLDER = "checkpoints"
_LAST = 2  # so many are kept, beside the best


@dataclass(frozen=True)
class Checkpoint:
    """The state after iteration `iter`; `figures` are those of the dev curve that were measured on these very weights."""

    file: Path
    iter: int
    figures: dict[str, float]

    @property
    def manifest(self) -> Path:
        """What says that it is whole."""
        return self.file.with_suffix(".json")

    def declare(self) -> None:
        """Write the manifest of the file: from now on it counts."""
        facts = {"file": self.file.name, "bytes": self.file.stat().st_size, "sha256": file_sha256(self.file)}
        write_json(self.manifest, {**facts, "iter": self.iter, "figures": self.figures})

    def problem(self) -> str | None:
        """Why it cannot be used, None for one that is whole."""
        facts = json.loads(self.manifest.read_text())
        if not self.file.is_file():
            return "is not there"
        if (size := self.file.stat().st_size) != facts["bytes"]:
            return f"has {size:,} bytes of {facts['bytes']:,}"
        return None if file_sha256(self.file) == facts["sha256"] else "has other bytes than were written"

    def remove(self) -> None:
        """Delete it; the manifest goes first, so that a file without one is rubbish."""
        self.manifest.unlink(missing_ok=True)
        self.file.unlink(missing_ok=True)


def place(folder: Path, iteration: int) -> Path:
    """The file of the checkpoint after `iteration` of the run in `folder`."""
    return folder / FOLDER / f"step-{iteration:08d}.ckpt"


def declared(folder: Path) -> list[Checkpoint]:
    """The checkpoints of the run in `folder` that have a manifest, by iteration."""
    found = []
    for manifest in sorted((folder / FOLDER).glob("step-*.json")):
        facts = json.loads(manifest.read_text())
        found.append(Checkpoint(manifest.with_name(facts["file"]), facts["iter"], facts["figures"]))
    return sorted(found, key=lambda checkpoint: checkpoint.iter)


def newest(folder: Path) -> Path | None:
    """The last checkpoint that is whole, None before the first; a damaged one is passed over and named.

    ConfigError when all are damaged: to begin anew is for the user to decide.
    """
    damaged: list[str] = []
    for checkpoint in reversed(declared(folder)):
        if (problem := checkpoint.problem()) is None:
            if damaged:
                _log.warning("%s; going on from iteration %d", "; ".join(damaged), checkpoint.iter)
            return checkpoint.file
        damaged.append(f"{checkpoint.file} {problem}")
    if damaged:
        raise ConfigError(
            "no checkpoint of this run is whole: "
            + "; ".join(damaged)
            + f"; look at the disk, and delete {folder / FOLDER} "
            "to train from the beginning"
        )
    return None


def best(found: list[Checkpoint], name: str, most: bool) -> Checkpoint | None:
    """The one with the highest (`most`) or lowest figure `name`, the earlier of equal ones; None where none has it."""
    having = [checkpoint for checkpoint in found if name in checkpoint.figures]
    return (max if most else min)(having, key=lambda c: c.figures[name], default=None)


def prune(folder: Path, kept: Checkpoint | None) -> None:
    """Keep the last ones and `kept`; delete others, and what interrupted saves have left."""
    found = declared(folder)
    staying = [*found[-_LAST:], *([kept] if kept else [])]
    for checkpoint in found:
        if checkpoint not in staying:
            checkpoint.remove()
    known = {checkpoint.file for checkpoint in staying}
    for file in (folder / FOLDER).iterdir():
        if file.suffix == TEMPORARY or (file.suffix == ".ckpt" and file not in known):
            file.unlink()
