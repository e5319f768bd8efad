"""Training in several processes that each hold the whole model (trainer=ddp)."""

from __future__ import annotations

import signal
import subprocess
from datetime import timedelta

import lightning.pytorch as pl
import torch.distributed as dist
from lightning.pytorch.strategies import DDPStrategy, ParallelStrategy
from torch import Tensor

from erv.distributed import ranks
from erv.distributed.collectives import broadcast, reduce_gradients

TOWERS = ("vision_tower", "audio_tower")  # whole in every process, which runs them for its own clips
_FAREWELL_S = 5.0  # what other ranks have to say is worth as much


class EndsTogether(ParallelStrategy):
    """A rank that fails ends the ranks that were started from here."""

    def on_exception(self, exception: BaseException) -> None:
        """End the others, also one that hangs; tell what became of them."""
        super().on_exception(exception)
        started: list[subprocess.Popen[bytes]] = getattr(self.launcher, "procs", [])
        others = list(started)
        started.clear()  # Lightning's observer of this list would kill this process while it speaks
        for number, process in enumerate(others, 1):
            try:
                code = process.wait(_FAREWELL_S)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                exception.add_note(f"rank {number} had not ended, and was killed")
                continue
            if code < 0:
                exception.add_note(
                    f"rank {number} was ended by {signal.Signals(-code).name}; SIGKILL is often lack of memory"
                )
            elif code:
                exception.add_note(f"rank {number} failed with exit code {code}, see above")


class Replicas(EndsTogether, DDPStrategy):
    """Lightning's DDP strategy without torch's DDP module: gradients are reduced once, when a step's backward is over.

    GRPO needs that (its ranks run different numbers of backward passes, and bypass `forward`), and it lets a rank's clips have
    no use for some weights, such as those of a modality they lack. What DDP would win is the overlap of one reduction per step
    with the backward pass. A module that takes its own steps reduces its own gradients.

    A rank that waits longer than `timeout_s` for the others fails, and a rank that fails ends the others.
    """

    def __init__(self, timeout_s: float = 600) -> None:
        super().__init__(timeout=timedelta(seconds=timeout_s))

    def configure_ddp(self) -> None:
        """Begin with rank 0's weights everywhere."""
        module = self.lightning_module
        if module is not None:
            broadcast([*module.parameters(), *module.buffers()], self.root_device)

    def post_backward(self, closure_loss: Tensor) -> None:
        """Average the gradients; a rank's loss is such that their mean is that of the whole batch."""
        module = self.lightning_module
        if module is not None and module.automatic_optimization:
            reduce_gradients(module.parameters(), mean=True)


def leave(trainer: pl.Trainer) -> None:
    """After training: no process waits for another one any more."""
    if dist.is_available() and dist.is_initialized():
        trainer.strategy.barrier()
        dist.destroy_process_group()
    ranks.part()
