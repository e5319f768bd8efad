"""The axes of every curve, by exact name: `iter` and `samples`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import lightning.pytorch as pl
import torch

ITER, SAMPLES = "iter", "samples"


class Axes(pl.Callback):
    """Counts batches (`iter`) and the clips or sentences of all processes (`samples`), and logs both with every curve.

    It logs `train/lr` as well, the learning rate that the batch was trained with. Counts are kept in checkpoints.
    """

    def __init__(self) -> None:
        self.iter = self.samples = 0
        self._lr = 0.0

    @property
    def values(self) -> dict[str, float]:
        """Where the run is."""
        return {ITER: float(self.iter), SAMPLES: float(self.samples)}

    def on_train_batch_start(self, trainer: pl.Trainer, module: pl.LightningModule, batch: Any, index: int) -> None:
        """Note the learning rate before a schedule changes it."""
        self._lr = float(trainer.optimizers[0].param_groups[0]["lr"])

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any, index: int
    ) -> None:  # fmt: skip
        """Count the batch."""
        count = torch.tensor(float(len(batch)), device=module.device)
        self.iter = index + 1
        self.samples += int(trainer.strategy.reduce(count, reduce_op="sum"))
        module.log_dict({**self.values, "train/lr": self._lr}, batch_size=len(batch))

    def on_validation_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Say where the dev curve is."""
        module.log_dict(self.values, batch_size=1)

    def state_dict(self) -> dict[str, int]:
        """The counts."""
        return {ITER: self.iter, SAMPLES: self.samples}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Go on from there."""
        self.iter, self.samples = state[ITER], state[SAMPLES]


def over_iterations(metrics: Mapping[str, Any], step: int | None) -> tuple[dict[str, Any], int | None]:
    """Metrics as our loggers write them: over `iter`, and without Lightning's epoch, of which a run has one."""
    named = {name: value for name, value in metrics.items() if name != "epoch"}
    return named, int(named[ITER]) if ITER in named else step
