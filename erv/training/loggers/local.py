"""Loggers that write into the run's folder, under the metric names of docs/logging.md. W&B is in wandb.py."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from erv.training.callbacks.counters import Counters, over_iterations

CURVES = "logs"  # below a run's folder: one version_N folder with metrics.csv per start of the run
EVENTS = "tensorboard"  # below a run's folder
_MEASURED_SPLITS = ("sampled", "greedy", "heldout", "audit", "withheld")


class _Csv(CSVLogger):
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        super().log_metrics(*over_iterations(metrics, step))


class _TensorBoard(TensorBoardLogger):
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        super().log_metrics(*over_iterations(metrics, step))


def csv_logger(folder: str) -> CSVLogger:
    """Curves as `logs/version_N/metrics.csv` in the run's folder; a resumed run writes the next version."""
    return _Csv(folder, name=CURVES, flush_logs_every_n_steps=20)


def tensorboard_logger(folder: str) -> TensorBoardLogger:
    """Curves as TensorBoard's event files in `tensorboard/` of the run's folder.

    Where a resumed run repeats iterations, TensorBoard shows the later ones.
    """
    return _TensorBoard(folder, name=EVENTS, version="", default_hp_metric=False)


def log_figures(trainer: pl.Trainer, measured: Mapping[str, Any]) -> None:
    """Log the figures of the finished run as `test/<decoding>/<figure>`, a verifier's as `test/<split>/<figure>`."""
    flat = {
        f"test/{split}/{name}": value
        for split in _MEASURED_SPLITS
        for name, value in measured.get(split, {}).items()
        if isinstance(value, float)
    }
    (counters,) = (callback for callback in trainer.callbacks if isinstance(callback, Counters))
    for logger in trainer.loggers if flat else ():
        logger.log_metrics({**flat, **counters.values})
        logger.finalize("success")


def finish_loggers(trainer: pl.Trainer, model: Path) -> None:
    """Give the trained model to the loggers that keep it, and close them."""
    for logger in trainer.loggers:
        if hasattr(logger, "finish"):
            logger.finish(model)
