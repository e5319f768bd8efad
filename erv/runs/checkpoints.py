"""The checkpoints of a run: list them, find the newest intact one, prune old ones. Loads no torch.

A checkpoint is `checkpoints/step-00000100.ckpt` and a manifest `step-00000100.json` with its size and SHA-256. The manifest is
written last, so a checkpoint file without a manifest is an interrupted save and does not count.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from erv.errors import ConfigError
from erv.utils.documents import DocumentError, read_json
from erv.utils.io import TEMPORARY, file_sha256, write_json

_log = logging.getLogger(__name__)
FOLDER = "checkpoints"
_KEEP_LAST = 2  # besides the best one


@dataclass(frozen=True)
class Checkpoint:
    """A saved training state.

    Attributes:
        file: The checkpoint file.
        iter: How many iterations were done when it was saved.
        figures: Dev metrics that were measured on exactly these weights, by name.
    """

    file: Path
    iter: int
    figures: dict[str, float]

    @property
    def manifest(self) -> Path:
        """The path of its manifest."""
        return self.file.with_suffix(".json")

    def write_manifest(self) -> None:
        """Write the manifest of a file that is complete on disk; from now on the checkpoint counts."""
        facts = {"file": self.file.name, "bytes": self.file.stat().st_size, "sha256": file_sha256(self.file)}
        write_json(self.manifest, {**facts, "iter": self.iter, "figures": self.figures})

    def problem(self) -> str | None:
        """Compare the file with its manifest; returns why it cannot be used, None if it is intact."""
        try:
            facts = _read_manifest(self.manifest)
        except DocumentError as error:
            return f"has a damaged manifest ({error})"
        if not self.file.is_file():
            return "is not there"
        if (size := self.file.stat().st_size) != facts["bytes"]:
            return f"has {size:,} bytes of {facts['bytes']:,}"
        return None if file_sha256(self.file) == facts["sha256"] else "has other bytes than were written"

    def remove(self) -> None:
        """Delete the checkpoint, its manifest first: if this is interrupted, no manifest is left without its file."""
        self.manifest.unlink(missing_ok=True)
        self.file.unlink(missing_ok=True)


def checkpoint_file(folder: Path, iteration: int) -> Path:
    """The path of the checkpoint after `iteration` of the run in `folder`."""
    return folder / FOLDER / f"step-{iteration:08d}.ckpt"


def list_checkpoints(folder: Path) -> list[Checkpoint]:
    """The checkpoints of the run in `folder` that have a manifest, oldest first; their bytes are not checked.

    Of one whose manifest is damaged the iteration is read from its name; it has no figures, and `problem` says what is wrong.
    """
    checkpoints = []
    for manifest in sorted((folder / FOLDER).glob("step-*.json")):
        try:
            facts = _read_manifest(manifest)
            checkpoint = Checkpoint(manifest.with_suffix(".ckpt"), facts["iter"], facts["figures"])
        except DocumentError:
            number = manifest.stem.removeprefix("step-")
            checkpoint = Checkpoint(manifest.with_suffix(".ckpt"), int(number) if number.isdecimal() else 0, {})
        checkpoints.append(checkpoint)
    return sorted(checkpoints, key=lambda checkpoint: checkpoint.iter)


def _read_manifest(file: Path) -> dict[str, Any]:
    """A manifest with what `write_manifest` wrote; DocumentError for anything else."""
    facts: dict[str, Any] = read_json(file)
    kinds = {"file": str, "bytes": int, "sha256": str, "iter": int, "figures": dict}
    if wrong := [name for name, kind in kinds.items() if not isinstance(facts.get(name), kind)]:
        raise DocumentError(f"{file}: has no {', '.join(wrong)}")
    if not all(isinstance(value, int | float) for value in facts["figures"].values()):
        raise DocumentError(f"{file}: has figures that are no numbers")
    return facts


def newest(folder: Path) -> Path | None:
    """The file of the newest intact checkpoint, None if there is no checkpoint; damaged ones are skipped with a warning.

    Raises:
        ConfigError: If all checkpoints are damaged; training from the beginning is the user's decision.
    """
    damaged: list[str] = []
    for checkpoint in reversed(list_checkpoints(folder)):
        if (problem := checkpoint.problem()) is None:
            if damaged:
                _log.warning("%s; going on from iteration %d", "; ".join(damaged), checkpoint.iter)
            return checkpoint.file
        damaged.append(f"{checkpoint.file} {problem}")
    if damaged:
        raise ConfigError(
            f"no checkpoint of this run is whole: {'; '.join(damaged)}; look at the disk, and delete {folder / FOLDER} to train "
            "from the beginning"
        )
    return None


def best(checkpoints: list[Checkpoint], name: str, maximize: bool) -> Checkpoint | None:
    """The checkpoint with the highest (`maximize`) or lowest metric `name`, the earliest of equal ones; None if none has it."""
    candidates = [checkpoint for checkpoint in checkpoints if name in checkpoint.figures]
    return (max if maximize else min)(candidates, key=lambda c: c.figures[name], default=None)


def prune(folder: Path, best_checkpoint: Checkpoint | None) -> None:
    """Delete all checkpoints but the newest ones and `best_checkpoint`, and the files of interrupted saves."""
    checkpoints = list_checkpoints(folder)
    retained = [*checkpoints[-_KEEP_LAST:], *([best_checkpoint] if best_checkpoint else [])]
    for checkpoint in checkpoints:
        if checkpoint not in retained:
            checkpoint.remove()
    retained_files = {checkpoint.file for checkpoint in retained}
    for file in (folder / FOLDER).iterdir():
        if file.suffix == TEMPORARY or (file.suffix == ".ckpt" and file not in retained_files):
            file.unlink()
