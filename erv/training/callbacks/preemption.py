"""The early end of training by a signal or an error: the state is saved first."""

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


class Preemption(pl.Callback):
    """Saves and ends at SIGTERM, SIGUSR1 or Ctrl-C; saves when an error ends the run.

    Until a batch changes the weights, the state is still that of its beginning: a single process stops there at once, in the
    middle of a rollout. Otherwise the batch, and the validation that is due after it, are finished first. Several processes
    stop together before the next batch, whichever got the signal. Ctrl-C a second time waits for nothing.
    """

    def __init__(self, checkpoints: Checkpoints) -> None:
        self.checkpoints = checkpoints
        self.completed = 0  # batches
        self.unchanged = False  # whether the weights are still those after `completed` batches
        self.signal = 0  # the signal that was received

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Replace Lightning's signal handler, which waits for other ranks within the handler."""
        signals.listen(self._handle)

    def on_train_batch_start(self, trainer: pl.Trainer, module: pl.LightningModule, batch: Any, index: int) -> None:
        """End here if any process has received a signal."""
        if index % trainer.accumulate_grad_batches:
            return  # gradients of earlier batches would be lost
        self.completed = index
        if number := max(all_gather_object(self.signal)):
            self.checkpoints.save(trainer, index)
            raise Stopped(number)
        self.unchanged = world_size() == 1

    def on_before_optimizer_step(self, trainer: pl.Trainer, module: pl.LightningModule, optimizer: Any) -> None:
        """From here on the batch has to be finished."""
        self.unchanged = False

    def on_train_batch_end(self, *_: Any) -> None:
        """The batch is over, also where no step was taken."""
        self.unchanged = False

    def on_exception(self, trainer: pl.Trainer, module: pl.LightningModule, exception: BaseException) -> None:
        """Save the state before this batch, if the weights are still those; a failing save does not hide the error."""
        if not self.unchanged:
            return
        self.unchanged = False
        try:
            self.checkpoints.save(trainer, self.completed)
        except Exception as error:
            exception.add_note(f"the state after {self.completed} batches could not be saved: {error!r}")
            return
        if not isinstance(exception, Stopped):
            exception.add_note(f"saved after {self.completed} batches: the same command goes on from there")

    def _handle(self, number: int, frame: FrameType | None) -> None:
        second_interrupt = self.signal == number == signal.SIGINT
        self.signal = number
        if self.unchanged or second_interrupt:
            raise Stopped(number)
        hint = " (Ctrl-C again: at once, without it)" if number == signal.SIGINT else ""
        _log.info("%s: the batch comes to its end first%s", signal.Signals(number).name, hint)
