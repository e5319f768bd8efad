"""Random numbers of a training step that depend on the seed and the step only."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
import torch

from erv.utils.seeding import prompt_seed


class StepSeed(pl.Callback):
    """Seeds torch before every step by (seed, step, rank), so that a resumed run repeats the uninterrupted one."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(self, trainer: pl.Trainer, module: pl.LightningModule, batch: Any, index: int) -> None:
        """Seed."""
        rank = (trainer.global_rank,) if trainer.global_rank else ()  # dropout is not the same in all processes
        torch.manual_seed(prompt_seed(self.seed, "step", index, *rank))
