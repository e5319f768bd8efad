"""How far training is: one bar in a terminal, a plain line now and then elsewhere."""

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

_PERCENT = ("fcr", "war", "accuracy")


class TrainingProgress(ProgressBar):
    """Iteration, reward or loss, the last dev figure and the time that remains.

    Without a terminal a line like `iter 20/80 reward 2.31 fcr 48.2 eta 0:03:10` goes to stderr after the first iteration, at
    most every ERV_PROGRESS_S seconds (default 10) from then on, and at the end: a launcher shows the last line of a log.
    """

    def __init__(self) -> None:
        super().__init__()
        self.every = seconds(os.environ.get("ERV_PROGRESS_S", "10"))
        self._enabled = True
        self._began, self._first, self._printed = 0.0, 0, -math.inf
        self._bar: Progress | None = None
        self._task: Any = None

    def disable(self) -> None:
        """Show nothing: other processes than the first."""
        self._enabled = False

    def enable(self) -> None:
        """Show again."""
        self._enabled = True

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Begin to count, after what an earlier start did."""
        self._began, self._first = time.monotonic(), trainer.fit_loop.epoch_loop.batch_progress.current.completed
        console = Console(file=sys.stderr)
        if self._enabled and sys.stderr.isatty() and not console.is_dumb_terminal:
            columns = (TextColumn("iter"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[text]}"))
            self._bar = Progress(*columns, console=console)
            self._task = self._bar.add_task("iter", total=trainer.num_training_batches, completed=self._first, text="")
            self._bar.start()

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:  # fmt: skip
        """One further."""
        self._show(trainer, batch_idx + 1)

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """The new dev figure."""
        self._show(trainer, trainer.fit_loop.epoch_loop.batch_progress.current.completed)

    def on_train_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """The last word; the bar stays as it is."""
        self._show(trainer, trainer.fit_loop.epoch_loop.batch_progress.current.completed, last=True)
        self._stop()

    def on_exception(self, trainer: pl.Trainer, module: pl.LightningModule, exception: BaseException) -> None:
        """Give the terminal back."""
        self._stop()

    def _stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _show(self, trainer: pl.Trainer, done: int, last: bool = False) -> None:
        total, now = int(trainer.num_training_batches), time.monotonic()
        left = (now - self._began) / max(1, done - self._first) * (total - done)
        text = f"{spoken(trainer.progress_bar_metrics)} eta {timedelta(seconds=round(left))}".strip()
        if self._bar is not None:
            self._bar.update(self._task, completed=done, text=text)
        elif self._enabled and (last or now - self._printed >= self.every):
            self._printed = now
            print(f"iter {done}/{total} {text}", file=sys.stderr, flush=True)


def spoken(metrics: Mapping[str, float]) -> str:
    """Figures in a few words: `reward 2.31 fcr 48.2`."""
    words = []
    for name, value in metrics.items():
        short = name.removeprefix("train/").removeprefix("dev/").split("/")[0]
        if short in _PERCENT:
            words.append(f"{short} {100 * value:.1f}")
        else:
            words.append(f"{'dev ' if name.startswith('dev/') else ''}{short} {value:.3g}")
    return " ".join(words)


def seconds(text: str) -> float:
    """The seconds between two lines."""
    try:
        return float(text)
    except ValueError as error:
        raise ConfigError(f"ERV_PROGRESS_S is a number of seconds, got {text!r}") from error
