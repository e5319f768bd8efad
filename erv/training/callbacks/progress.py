"""The progress of training: one bar in a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import ProgressBar
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from erv.errors import ConfigError

_PERCENT = ("fcr", "war", "accuracy")  # figures that are shown as percentages


class TrainingProgress(ProgressBar):
    """Shows iteration, reward or loss, the last dev figure and the time that remains.

    Without a terminal a line like `iter 20/80 reward 2.31 fcr 48.2 eta 0:03:10` goes to stderr after the first iteration, at
    most every ERV_PROGRESS_S seconds (default 10) from then on, and at the end: a launcher shows the last line of a log.
    """

    def __init__(self) -> None:
        super().__init__()
        self.interval_s = parse_seconds(os.environ.get("ERV_PROGRESS_S", "10"))
        self._enabled = True
        self._start_time, self._start_batch, self._last_print = 0.0, 0, -math.inf
        self._bar: Progress | None = None
        self._task: Any = None

    def disable(self) -> None:
        """Show nothing; Lightning calls it on other ranks than the first."""
        self._enabled = False

    def enable(self) -> None:
        """Show progress again."""
        self._enabled = True

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Start the clock; batches before the checkpoint that the run resumes from do not count for the rest's time."""
        self._start_time, self._start_batch = time.monotonic(), _completed(trainer)
        console = Console(file=sys.stderr)
        if self._enabled and sys.stderr.isatty() and not console.is_dumb_terminal:
            columns = (TextColumn("iter"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[text]}"))
            self._bar = Progress(*columns, console=console)
            self._task = self._bar.add_task(
                "iter", total=trainer.num_training_batches, completed=self._start_batch, text=""
            )
            self._bar.start()

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Advance by one batch."""
        self._show(trainer, batch_idx + 1)

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Show the new dev figure."""
        self._show(trainer, _completed(trainer))

    def on_train_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Print the last line, or leave the bar as it is."""
        self._show(trainer, _completed(trainer), last=True)
        self._stop()

    def on_exception(self, trainer: pl.Trainer, module: pl.LightningModule, exception: BaseException) -> None:
        """Restore the terminal."""
        self._stop()

    def _stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _show(self, trainer: pl.Trainer, completed: int, last: bool = False) -> None:
        total, now = int(trainer.num_training_batches), time.monotonic()
        per_batch = (now - self._start_time) / max(1, completed - self._start_batch)
        eta = timedelta(seconds=round(per_batch * (total - completed)))
        text = f"{format_metrics(trainer.progress_bar_metrics)} eta {eta}".strip()
        if self._bar is not None:
            self._bar.update(self._task, completed=completed, text=text)
        elif self._enabled and (last or now - self._last_print >= self.interval_s):
            self._last_print = now
            print(f"iter {completed}/{total} {text}", file=sys.stderr, flush=True)


def _completed(trainer: pl.Trainer) -> int:
    """Batches that are done, those before a resumption included."""
    completed: int = trainer.fit_loop.epoch_loop.batch_progress.current.completed
    return completed


def format_metrics(metrics: Mapping[str, float]) -> str:
    """Metrics in a few words: `reward 2.31 fcr 48.2`."""
    words = []
    for name, value in metrics.items():
        short = name.removeprefix("train/").removeprefix("dev/").split("/")[0]
        if short in _PERCENT:
            words.append(f"{short} {100 * value:.1f}")
        else:
            words.append(f"{'dev ' if name.startswith('dev/') else ''}{short} {value:.3g}")
    return " ".join(words)


def parse_seconds(text: str) -> float:
    """The value of ERV_PROGRESS_S; ConfigError where it is no number."""
    try:
        return float(text)
    except ValueError as error:
        raise ConfigError(f"ERV_PROGRESS_S is a number of seconds, got {text!r}") from error
