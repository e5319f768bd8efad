"""The guard against steps whose loss or gradient is not finite: they are left out, saved, and end the run if they go on."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from erv.distributed.collectives import rank
from erv.distributed.sharding import sharding_of

_log = logging.getLogger(__name__)
FOLDER = "nonfinite"  # below a run's folder


class NonFiniteCounter:
    """Counts the steps in a row that are not finite; `limit` of them end the run."""

    def __init__(self, limit: int) -> None:
        if limit < 1:
            raise ValueError(f"algo.max_nonfinite must be at least 1, the steps in a row that end a run; got {limit}")
        self.limit, self.in_a_row = limit, 0

    def is_finite(
        self, run: Path, iteration: int, loss: float, norm: float, batch: Callable[[], dict[str, Any]]
    ) -> bool:
        """Whether a step may be taken; saves its batch if not.

        Args:
            run: the run's folder, in which `nonfinite/<iteration>.pt` is written.
            loss: of the step, over all processes, so that they all decide alike.
            norm: of its gradient, over all processes.
            batch: makes what is saved; each process saves its own part.

        Raises:
            FloatingPointError: it was the `limit`-th in a row.
        """
        if math.isfinite(loss) and math.isfinite(norm):
            self.in_a_row = 0
            return True
        self.in_a_row += 1
        suffix = f"-rank{rank()}" if rank() else ""
        path = run / FOLDER / f"{iteration:08d}{suffix}.pt"
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save({"iter": iteration, "loss": loss, "grad_norm": norm, **batch()}, path)
        _log.warning("iteration %d left out: loss %s, gradient norm %s; see %s", iteration, loss, norm, path)
        if self.in_a_row >= self.limit:
            raise FloatingPointError(
                f"{self.in_a_row} steps in a row were not finite (algo.max_nonfinite={self.limit}), the last with loss {loss} "
                f"and gradient norm {norm}; the weights are sound, the batches are in {path.parent}: lower optim.lr, or set "
                "trainer.precision=32-true, and run the same command again"
            )
        return False


class NonFiniteGuard(pl.Callback):
    """Clips gradients and leaves out non-finite steps, in stages whose steps Lightning takes.

    A step is left out by removing its gradients: AdamW skips parameters without one, weight decay included. For all stages,
    the count of such steps is kept in checkpoints.
    """

    def __init__(self) -> None:
        self.loss = math.nan
        self.batch: Sequence[Any] = ()

    def on_train_batch_start(self, trainer: pl.Trainer, module: Any, batch: Any, index: int) -> None:
        """Remember what would be saved."""
        self.batch = batch

    def on_before_backward(self, trainer: pl.Trainer, module: Any, loss: Tensor) -> None:
        """Remember the loss."""
        self.loss = float(loss.detach())

    def on_before_optimizer_step(self, trainer: pl.Trainer, module: Any, optimizer: Any) -> None:
        """Clip the gradients, or remove those of a non-finite step."""
        if not module.automatic_optimization:
            return
        trained = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        norm = sharding_of(trainer).clip_gradients(trained, module.optim.max_grad_norm)
        iteration, folder = trainer.fit_loop.epoch_loop.batch_idx + 1, Path(trainer.default_root_dir)
        if not module.nonfinite.is_finite(folder, iteration, self.loss, float(norm), self._batch_facts):
            for parameter in trained:
                parameter.grad = None

    def on_save_checkpoint(self, trainer: pl.Trainer, module: Any, checkpoint: dict[str, Any]) -> None:
        """Save how many steps in a row were not finite."""
        checkpoint["nonfinite"] = module.nonfinite.in_a_row

    def on_load_checkpoint(self, trainer: pl.Trainer, module: Any, checkpoint: dict[str, Any]) -> None:
        """Restore it."""
        module.nonfinite.in_a_row = checkpoint["nonfinite"]

    def _batch_facts(self) -> dict[str, Any]:
        """The ids of the clips, or the sentences."""
        return {"batch": [row if isinstance(row, dict) else row[0].id for row in self.batch]}
