"""How training ends before its end: by a signal, or by an error. What was done is saved first."""

from __future__ import annotations

import logging
import signal
from types import FrameType
from typing import Any

import lightning.pytorch as pl

from erv.distributed import signals
from erv.distributed.collectives import all_gather_object, world_size
from erv.distributed.signals import Stopped
from erv.training.callbacks.checkpoint import Checkpoints

_log = logging.getLogger(__name__)


class Stopping(pl.Callback):
    """Saves and ends at SIGTERM, SIGUSR1 or Ctrl-C; saves when an error ends the run.

    Until a batch changes the weights, the state is still that of its beginning: one process stops there at once, in the
    middle of a rollout. Otherwise the batch, and the validation that is due after it, come to their end first. Several processes
    stop together before the next batch, whichever got the signal. Ctrl-C a second time waits for nothing.
    """

    def __init__(self, saving: Checkpoints) -> None:
        self.saving = saving
        self.done = 0  # batches
        self.unchanged = False  # the state is that after `done` batches
        self.number = 0  # of the signal that came

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Take the signals over from Lightning, whose way to tell other ranks is to wait for them within the signal."""
        signals.listen(self._handle)

    def on_train_batch_start(self, trainer: pl.Trainer, module: pl.LightningModule, batch: Any, index: int) -> None:
        """End here if a process was told to."""
        if index % trainer.accumulate_grad_batches:
            return  # a gradient is underway
        self.done = index
        if number := max(all_gather_object(self.number)):
            self.saving.save(trainer, index)
            raise Stopped(number)
        self.unchanged = world_size() == 1

    def on_before_optimizer_step(self, trainer: pl.Trainer, module: pl.LightningModule, optimizer: Any) -> None:
        """From here on the batch has to come to its end."""
        self.unchanged = False

    def on_train_batch_end(self, *_: Any) -> None:
        """Also where no step was taken."""
        self.unchanged = False

    def on_exception(self, trainer: pl.Trainer, module: pl.LightningModule, exception: BaseException) -> None:
        """Save the state before this batch, if it is still there; this is in the way of no error."""
        if not self.unchanged:
            return
        self.unchanged = False
        try:
            self.saving.save(trainer, self.done)
        except Exception as error:
            exception.add_note(f"the state after {self.done} batches could not be saved: {error!r}")
            return
        if not isinstance(exception, Stopped):
            exception.add_note(f"saved after {self.done} batches: the same command goes on from there")

    def _handle(self, number: int, frame: FrameType | None) -> None:
        again = self.number == number == signal.SIGINT
        self.number = number
        if self.unchanged or again:
            raise Stopped(number)
        at_once = " (Ctrl-C again: at once, without it)" if number == signal.SIGINT else ""
        _log.info("%s: the batch comes to its end first%s", signal.Signals(number).name, at_once)
