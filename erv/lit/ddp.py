"""Training in several processes that each hold the whole model (trainer=ddp)."""

from __future__ import annotations

import signal
import subprocess
from datetime import timedelta

import lightning.pytorch as pl
import torch.distributed as dist
from lightning.pytorch.strategies import DDPStrategy

from erv import ranks

_FAREWELL_S = 5.0  # what other ranks have to say is worth as much


class Replicas(DDPStrategy):
    """Lightning's DDP for stages whose steps Lightning takes; a module that takes its own reduces its own gradients (GRPO).

    Such a module runs as many backward passes as its share of the answers needs, which differ, and bypasses `forward`. A rank
    that waits longer than `timeout_s` for the others fails, and a rank that fails ends the others. Parts that a rank's clips
    have no use for, such as the projector of a modality they lack, are allowed.
    """

    def __init__(self, timeout_s: float = 600) -> None:
        # buffers are constants, and to send them would be a collective in every validation batch
        super().__init__(
            timeout=timedelta(seconds=timeout_s), find_unused_parameters=True, broadcast_buffers=False
        )  # fmt: skip

    def configure_ddp(self) -> None:
        """Begin with rank 0's weights everywhere; wrap the module only where Lightning takes the steps."""
        module = self.lightning_module
        if module is None or module.automatic_optimization:
            super().configure_ddp()
            return
        for tensor in [*module.parameters(), *module.buffers()]:
            dist.broadcast(tensor.data, src=0)

    def on_exception(self, exception: BaseException) -> None:
        """End the ranks that were started from here, also one that hangs."""
        super().on_exception(exception)
        for process in getattr(self.launcher, "procs", ()):
            try:
                process.wait(_FAREWELL_S)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)


def leave(trainer: pl.Trainer) -> None:
    """After training: no process waits for another one any more."""
    if dist.is_available() and dist.is_initialized():
        trainer.strategy.barrier()
        dist.destroy_process_group()
    ranks.part()
