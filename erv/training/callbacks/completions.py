"""What happens around training steps: modes, seeds, and the completions on disk."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pyarrow as pa
import pyarrow.parquet as pq

from erv.utils.io import replacing

SHOWN, INCREMENTS = 16, 100  # W&B shows the last 100 increments of a table
PARTS = "completions"  # folder of the parts, which become one file of the same name when training ends


class Completions(pl.Callback):
    """Writes what GRPO sampled to completions.parquet.

    A part is written with every checkpoint, named by its first iteration; a run that goes on drops parts that begin after its
    checkpoint. The parts become one file when training ends. Rank 0 has the rows of all processes. Loggers that keep tables
    get `SHOWN` of an iteration at a time, of so many iterations, evenly spread, that no run has more than `INCREMENTS` times
    that in memory.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rows: list[dict[str, Any]] = []

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Forget what lies after the checkpoint that this run goes on from."""
        done = trainer.fit_loop.epoch_loop.batch_progress.current.completed
        for part in (self.folder / PARTS).glob("*.parquet") if trainer.is_global_zero else ():
            if int(part.stem) > done:
                part.unlink()

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: Any, outputs: Any, batch: Any, index: int
    ) -> None:  # fmt: skip
        """Collect."""
        rows = module.completions
        self.rows += rows
        if rows and index % math.ceil(trainer.num_training_batches / INCREMENTS) == 0:
            for logger in trainer.loggers:
                if hasattr(logger, "log_completions"):
                    logger.log_completions(rows[:SHOWN])

    def on_save_checkpoint(self, trainer: pl.Trainer, module: pl.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Write what a run that goes on from this checkpoint will not sample again."""
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
    with replacing(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")
