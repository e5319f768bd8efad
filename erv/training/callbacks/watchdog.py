"""The end of a run that hangs: without it, a rank that waits for another one costs a cluster's time for days."""

from __future__ import annotations

import faulthandler
import os
import sys
import threading
import time
from typing import Any

import lightning.pytorch as pl

from erv.distributed.collectives import rank

_FAREWELL_S = 3.0  # the other ranks have stacks to print, too


class Watchdog(pl.Callback):
    """Ends the process when nothing has happened in training for `timeout_s`; says in which phase, with all stacks.

    Time is that of a clock that nobody sets. Every rank has its own watchdog, and the end of one is the end of all.
    """

    def __init__(self, timeout_s: float) -> None:
        if timeout_s <= 0:
            raise ValueError(f"launch.watchdog_s is above 0, or null for none; got {timeout_s}")
        self.timeout_s = timeout_s
        self.phase, self.since = "the start", time.monotonic()
        self.over = threading.Event()

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Begin to watch."""
        self._is("the start")
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    def on_train_batch_start(self, trainer: pl.Trainer, module: pl.LightningModule, batch: Any, index: int) -> None:
        """The longest phase: of GRPO it is the rollout and its rewards."""
        self._is(f"batch {index + 1}, before its first backward pass")

    def on_before_backward(self, trainer: pl.Trainer, module: pl.LightningModule, loss: Any) -> None:
        """A micro-batch."""
        self._is(f"batch {trainer.fit_loop.epoch_loop.batch_idx + 1}, a backward pass or the gradients' reduction")

    def on_before_optimizer_step(self, trainer: pl.Trainer, module: pl.LightningModule, optimizer: Any) -> None:
        """The step."""
        self._is(f"batch {trainer.fit_loop.epoch_loop.batch_idx + 1}, the optimiser step")

    def on_train_batch_end(self, *_: Any) -> None:
        """Whatever comes next."""
        self._is("between two batches: logging, a checkpoint or the loading of data")

    def on_validation_batch_start(self, *_: Any) -> None:
        """A batch of dev clips."""
        self._is("validation")

    def on_save_checkpoint(self, *_: Any) -> None:
        """The disk."""
        self._is("a checkpoint")

    def on_train_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Watch no more."""
        self.over.set()

    def on_exception(self, *_: Any) -> None:
        """What ends by itself needs no watchdog."""
        self.over.set()

    def _is(self, phase: str) -> None:
        self.phase, self.since = phase, time.monotonic()

    def _watch(self) -> None:
        while not self.over.wait(min(self.timeout_s / 4, 10)):
            if time.monotonic() - self.since < self.timeout_s:
                continue
            print(
                f"\nerv: rank {rank()}: nothing has happened for {self.timeout_s:g} s (launch.watchdog_s) in {self.phase}; "
                "the run ends, its threads were here:",
                file=sys.stderr, flush=True,
            )  # fmt: skip
            faulthandler.dump_traceback(sys.stderr, all_threads=True)
            time.sleep(_FAREWELL_S)
            os._exit(1)
