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
from erv.distributed.collectives import all_reduce_gradients, broadcast

TOWERS = ("vision_tower", "audio_tower")  # never sharded: each process runs them for its own clips
_EXIT_TIMEOUT_S = 5.0  # of a rank that ends by itself after an error, and writes its message


class EndsRanksTogether(ParallelStrategy):
    """A strategy whose ranks end when the rank that started them fails."""

    def on_exception(self, exception: BaseException) -> None:
        """Wait for the other ranks, kill those that hang, and add to the exception how each ended."""
        super().on_exception(exception)
        processes: list[subprocess.Popen[bytes]] = getattr(self.launcher, "procs", [])
        others = list(processes)
        processes.clear()  # Lightning's thread that watches this list would kill this process in the middle of its message
        for rank, process in enumerate(others, 1):
            try:
                code = process.wait(_EXIT_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                exception.add_note(f"rank {rank} had not ended, and was killed")
                continue
            if code < 0:
                exception.add_note(
                    f"rank {rank} was ended by {signal.Signals(-code).name}; SIGKILL is often lack of memory"
                )
            elif code:
                exception.add_note(f"rank {rank} failed with exit code {code}, see above")


class DDP(EndsRanksTogether, DDPStrategy):
    """Lightning's DDP strategy without torch's DDP module: gradients are reduced once, after a step's backward passes.

    GRPO needs that: its ranks run different numbers of backward passes, and bypass `forward`. It also allows that a rank's
    clips do not use some weights, such as those of a modality they lack. What is lost is the overlap of the reduction with
    the backward pass, once per step. A module that takes its own steps (manual optimization) reduces its own gradients.

    Args:
        timeout_s: how long a rank waits for the others before it fails, which ends all of them.
    """

    def __init__(self, timeout_s: float = 600) -> None:
        super().__init__(timeout=timedelta(seconds=timeout_s))

    def configure_ddp(self) -> None:
        """Copy rank 0's weights to all ranks."""
        module = self.lightning_module
        if module is not None:
            broadcast([*module.parameters(), *module.buffers()], self.root_device)

    def post_backward(self, closure_loss: Tensor) -> None:
        """Average the gradients; the mean of the ranks' losses is the loss of the whole batch."""
        module = self.lightning_module
        if module is not None and module.automatic_optimization:
            all_reduce_gradients(module.parameters(), mean=True)


def end_process_group(trainer: pl.Trainer) -> None:
    """Leave the process group after training: from then on no process waits for another."""
    if dist.is_available() and dist.is_initialized():
        trainer.strategy.barrier()
        dist.destroy_process_group()
    ranks.forget_launch()
