"""The end of a run that hangs: without it, ranks that wait for each other would occupy a cluster for days."""

from __future__ import annotations

import faulthandler
import os
import sys
import threading
import time
from typing import Any

import lightning.pytorch as pl

from erv.distributed.collectives import rank

_EXIT_DELAY_S = 3.0  # the other ranks print their stacks, too


class Watchdog(pl.Callback):
    """Ends the process when nothing has happened in training for `timeout_s`; prints the phase and all stacks.

    Every rank has its own watchdog, and the end of one ends all.
    """

    def __init__(self, timeout_s: float) -> None:
        if timeout_s <= 0:
            raise ValueError(f"launch.watchdog_s is above 0, or null for none; got {timeout_s}")
        self.timeout_s = timeout_s
        # the monotonic clock, which setting the machine's time does not change
        self.phase, self.since = "the start", time.monotonic()
        self.stopped = threading.Event()

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Begin to watch."""
        self._enter("the start")
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    def on_train_batch_start(self, trainer: pl.Trainer, module: pl.LightningModule, batch: Any, index: int) -> None:
        """The longest phase: of GRPO it is the rollout and its rewards."""
        self._enter(f"batch {index + 1}, before its first backward pass")

    def on_before_backward(self, trainer: pl.Trainer, module: pl.LightningModule, loss: Any) -> None:
        """A micro-batch."""
        self._enter(f"batch {trainer.fit_loop.epoch_loop.batch_idx + 1}, a backward pass or the gradients' reduction")

    def on_before_optimizer_step(self, trainer: pl.Trainer, module: pl.LightningModule, optimizer: Any) -> None:
        """The optimizer's step."""
        self._enter(f"batch {trainer.fit_loop.epoch_loop.batch_idx + 1}, the optimiser step")

    def on_train_batch_end(self, *_: Any) -> None:
        """All between two batches."""
        self._enter("between two batches: logging, a checkpoint or the loading of data")

    def on_validation_batch_start(self, *_: Any) -> None:
        """A batch of dev clips."""
        self._enter("validation")

    def on_save_checkpoint(self, *_: Any) -> None:
        """A write to the disk."""
        self._enter("a checkpoint")

    def on_train_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Stop watching."""
        self.stopped.set()

    def on_exception(self, *_: Any) -> None:
        """Stop watching: the run ends by itself."""
        self.stopped.set()

    def _enter(self, phase: str) -> None:
        self.phase, self.since = phase, time.monotonic()

    def _watch(self) -> None:
        while not self.stopped.wait(min(self.timeout_s / 4, 10)):
            if time.monotonic() - self.since < self.timeout_s:
                continue
            print(
                f"\nerv: rank {rank()}: nothing has happened for {self.timeout_s:g} s (launch.watchdog_s) in {self.phase}; "
                "the run ends, its threads were here:",
                file=sys.stderr,
                flush=True,
            )
            faulthandler.dump_traceback(sys.stderr, all_threads=True)
            time.sleep(_EXIT_DELAY_S)
            os._exit(1)  # sys.exit would end this thread only
