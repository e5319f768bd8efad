"""Steps whose loss or gradient is not finite: left out, kept for a look, and the end of a run when they do not stop."""

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
FOLDER = "nonfinite"


class NonFinite:
    """Tells sound steps from others and counts the others; `limit` of them in a row end the run."""

    def __init__(self, limit: int) -> None:
        if limit < 1:
            raise ValueError(f"algo.max_nonfinite must be at least 1, the steps in a row that end a run; got {limit}")
        self.limit, self.in_a_row = limit, 0

    def is_sound(
        self, run: Path, iteration: int, loss: float, norm: float, batch: Callable[[], dict[str, Any]]
    ) -> bool:
        """Whether the `loss` of a step and the `norm` of its gradient are finite.

        If not, `batch()` is written to `nonfinite/<iteration>.pt` in the folder `run`; FloatingPointError at the limit.
        The figures are those of all processes, which therefore decide alike; each writes its own part of the batch.
        """
        if math.isfinite(loss) and math.isfinite(norm):
            self.in_a_row = 0
            return True
        self.in_a_row += 1
        own = f"-rank{rank()}" if rank() else ""
        path = run / FOLDER / f"{iteration:08d}{own}.pt"
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


class SoundSteps(pl.Callback):
    """`NonFinite` and `optim.max_grad_norm` for modules whose steps Lightning takes, and the count in the checkpoints of all.

    A step without gradients changes nothing: so is one left out whose loss or gradient is not finite.
    """

    def __init__(self) -> None:
        self.loss = math.nan
        self.batch: Sequence[Any] = ()

    def on_train_batch_start(self, trainer: pl.Trainer, module: Any, batch: Any, index: int) -> None:
        """Remember what would be written."""
        self.batch = batch

    def on_before_backward(self, trainer: pl.Trainer, module: Any, loss: Tensor) -> None:
        """Note the loss."""
        self.loss = float(loss.detach())

    def on_before_optimizer_step(self, trainer: pl.Trainer, module: Any, optimizer: Any) -> None:
        """Clip gradients, and take them away from a step that is not sound."""
        if not module.automatic_optimization:
            return
        trained = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        norm = sharding_of(trainer).clip_gradients(trained, module.optim.max_grad_norm)
        iteration, folder = trainer.fit_loop.epoch_loop.batch_idx + 1, Path(trainer.default_root_dir)
        if module.nonfinite.is_sound(folder, iteration, self.loss, float(norm), self._shown):
            return
        for parameter in trained:
            parameter.grad = None

    def on_save_checkpoint(self, trainer: pl.Trainer, module: Any, checkpoint: dict[str, Any]) -> None:
        """How many steps in a row were not finite."""
        checkpoint["nonfinite"] = module.nonfinite.in_a_row

    def on_load_checkpoint(self, trainer: pl.Trainer, module: Any, checkpoint: dict[str, Any]) -> None:
        """Go on counting."""
        module.nonfinite.in_a_row = checkpoint["nonfinite"]

    def _shown(self) -> dict[str, Any]:
        """The ids of clips, or the sentences."""
        return {"batch": [row if isinstance(row, dict) else row[0].id for row in self.batch]}
