"""The completions that GRPO samples, on the disk and in the loggers."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pyarrow as pa
import pyarrow.parquet as pq

from erv.utils.io import replacing

ROWS_PER_TABLE = 16  # completions of an iteration that loggers get
MAX_TABLES = 100  # W&B shows the last 100 increments of a table
PARTS = "completions"  # folder of the parts, which become one file of the same name when training ends


class CompletionsWriter(pl.Callback):
    """Writes what GRPO has sampled to completions.parquet.

    A part is written with every checkpoint, named by its first iteration; a run that resumes deletes parts that begin after its
    checkpoint. The parts become one file when training ends. Rank 0 has the rows of all processes. Loggers that keep tables
    get `ROWS_PER_TABLE` rows of at most `MAX_TABLES` iterations, evenly spread over the run.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rows: list[dict[str, Any]] = []  # since the last part was written

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Delete what was sampled after the checkpoint that this run resumes from."""
        completed = trainer.fit_loop.epoch_loop.batch_progress.current.completed
        for part in (self.folder / PARTS).glob("*.parquet") if trainer.is_global_zero else ():
            if int(part.stem) > completed:
                part.unlink()

    def on_train_batch_end(self, trainer: pl.Trainer, module: Any, outputs: Any, batch: Any, index: int) -> None:
        """Collect the rows of the batch."""
        rows = module.completions
        self.rows += rows
        if rows and index % math.ceil(trainer.num_training_batches / MAX_TABLES) == 0:
            for logger in trainer.loggers:
                if hasattr(logger, "log_completions"):
                    logger.log_completions(rows[:ROWS_PER_TABLE])

    def on_save_checkpoint(self, trainer: pl.Trainer, module: pl.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Write the rows that a run resumed from this checkpoint would lack."""
        self._write_part()

    def on_train_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Join the parts."""
        self._write_part()
        if not trainer.is_global_zero:
            return
        parts = sorted((self.folder / PARTS).glob("*.parquet"))
        if parts:
            _write(pa.concat_tables([pq.read_table(part) for part in parts]), self.folder / f"{PARTS}.parquet")

    def _write_part(self) -> None:
        if self.rows:
            (self.folder / PARTS).mkdir(exist_ok=True)
            _write(pa.Table.from_pylist(self.rows), self.folder / PARTS / f"{self.rows[0]['iter']:08d}.parquet")
            self.rows = []


def _write(table: pa.Table, path: Path) -> None:
    with replacing(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")
