"""The x axes of every curve: `iter` and `samples`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import lightning.pytorch as pl
import torch

ITER, SAMPLES = "iter", "samples"


class Counters(pl.Callback):
    """Counts batches (`iter`) and the clips or sentences of all processes (`samples`), and logs both with every curve.

    It also logs `train/lr`, the learning rate that the batch was trained with. Counts are kept in checkpoints.
    """

    def __init__(self) -> None:
        self.iter = self.samples = 0
        self._lr = 0.0

    @property
    def state_key(self) -> str:
        """The name of its state in checkpoints, which is older than that of this class."""
        return "Axes"

    @property
    def values(self) -> dict[str, float]:
        """Both counts, as metrics."""
        return {ITER: float(self.iter), SAMPLES: float(self.samples)}

    def on_train_batch_start(self, trainer: pl.Trainer, module: pl.LightningModule, batch: Any, index: int) -> None:
        """Remember the learning rate before the schedule changes it."""
        self._lr = float(trainer.optimizers[0].param_groups[0]["lr"])

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any, index: int
    ) -> None:
        """Count the batch."""
        count = torch.tensor(float(len(batch)), device=module.device)
        self.iter = index + 1
        self.samples += int(trainer.strategy.reduce(count, reduce_op="sum"))
        module.log_dict({**self.values, "train/lr": self._lr}, batch_size=len(batch))

    def on_validation_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Log the counts with the dev figures."""
        module.log_dict(self.values, batch_size=1)

    def state_dict(self) -> dict[str, int]:
        """The counts."""
        return {ITER: self.iter, SAMPLES: self.samples}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Restore the counts."""
        self.iter, self.samples = state[ITER], state[SAMPLES]


def over_iterations(metrics: Mapping[str, Any], step: int | None) -> tuple[dict[str, Any], int | None]:
    """Metrics and step as loggers write them: over `iter`, and without Lightning's `epoch`, which is 0 throughout a run."""
    named = {name: value for name, value in metrics.items() if name != "epoch"}
    return named, int(named[ITER]) if ITER in named else step
