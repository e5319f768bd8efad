"""What happens around training steps: seeds, checkpoints, and the completions on disk."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from erv.lit.evaluation import prompt_seed

SHOWN, INCREMENTS = 16, 100  # W&B shows the last 100 increments of a table
PARTS = "completions"  # folder of the parts, which become one file of the same name when training ends


class LastCheckpoint(pl.Callback):
    """Keeps `checkpoints/last.ckpt`, replaced every `every` batches.

    Lightning's own ModelCheckpoint counts optimiser steps and keeps copies of the weights when optimisation is manual.
    """

    def __init__(self, folder: Path, every: int) -> None:
        self.path, self.every = folder / "checkpoints" / "last.ckpt", every

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any, index: int
    ) -> None:  # fmt: skip
        """Save; the file is replaced as a whole."""
        if (index + 1) % self.every == 0:
            trainer.save_checkpoint(self.path)


class StepSeed(pl.Callback):
    """Random numbers of a step depend on seed, step and process alone: an interrupted run goes on as if it had not stopped."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(self, trainer: pl.Trainer, module: pl.LightningModule, batch: Any, index: int) -> None:
        """Seed before every step."""
        own = (trainer.global_rank,) if trainer.global_rank else ()  # dropout is not the same in all processes
        torch.manual_seed(prompt_seed(self.seed, "step", index, *own))


class Completions(pl.Callback):
    """Writes what GRPO sampled to completions.parquet.

    Parts are written together with the checkpoints, each named by its first iteration, so that a resumed run overwrites what
    it repeats; the parts become one file when training ends. Rank 0 has the rows of all processes. Loggers that keep tables
    get `SHOWN` of an iteration at a time, of so many iterations, evenly spread, that no run has more than `INCREMENTS` times
    that in memory.
    """

    def __init__(self, folder: Path, every: int) -> None:
        self.folder, self.every = folder, every
        self.rows: list[dict[str, Any]] = []

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any, index: int
    ) -> None:  # fmt: skip
        """Collect, and write at every checkpoint."""
        rows = getattr(module, "rows", [])
        self.rows += rows
        if rows and index % math.ceil(trainer.num_training_batches / INCREMENTS) == 0:
            for logger in trainer.loggers:
                if hasattr(logger, "log_completions"):
                    logger.log_completions(rows[:SHOWN])
        if (index + 1) % self.every == 0:
            self._flush()

    def on_train_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Join the parts."""
        self._flush()
        if not trainer.is_global_zero:
            return
        parts = sorted((self.folder / PARTS).glob("*.parquet"))
        if parts:
            _write(pa.concat_tables([pq.read_table(part) for part in parts]), self.folder / f"{PARTS}.parquet")

    def _flush(self) -> None:
        if self.rows:
            (self.folder / PARTS).mkdir(exist_ok=True)
            _write(pa.Table.from_pylist(self.rows), self.folder / PARTS / f"{self.rows[0]['iter']:08d}.parquet")
            self.rows = []


def _write(table: pa.Table, path: Path) -> None:
    temporary = path.with_suffix(".tmp")
    pq.write_table(table, temporary, compression="zstd")
    temporary.replace(path)
