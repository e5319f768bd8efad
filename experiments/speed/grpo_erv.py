"""Our engine: erv.training.GRPO under a Lightning trainer, its methods timed from outside."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from typing import Any

import lightning.pytorch as pl
from grpo_clock import Clock
from torch.utils.data import DataLoader

from erv.grpo.loss import GRPOLoss
from erv.taxonomy import Taxonomy
from erv.training.grpo import GRPO
from erv.training.optim import OptimizerSettings


class Timed(GRPO):
    """GRPO with a clock; nothing is computed differently."""

    clock: Clock

    def training_step(self, batch: list[Any], index: int) -> None:
        """One iteration."""
        with self.clock.step():
            super().training_step(batch, index)

    def transfer_batch_to_device(self, batch: Any, device: Any, dataloader_idx: int) -> Any:
        """As erv.training.datamodule does: batches hold records."""
        return batch

    def rollout(self, *args: Any) -> Any:
        """Sampling."""
        with self.clock.part("rollout"):
            return super().rollout(*args)

    def time_forward_passes(self) -> None:
        """Policy or reference."""
        logps = self.gradient.logps

        def timed(model: Any, *args: Any, **kwargs: Any) -> Any:
            with self.clock.part("reference" if model is self.reference else "forward"):
                return logps(model, *args, **kwargs)

        self.gradient.logps = timed  # type: ignore[method-assign]

    def manual_backward(self, loss: Any, *args: Any, **kwargs: Any) -> None:
        """Backward pass."""
        with self.clock.part("backward"):
            super().manual_backward(loss, *args, **kwargs)

    def clip(self) -> Any:
        """Clipping goes with the backward pass, as does the optimiser."""
        with self.clock.part("backward"):
            return super().clip()

    def configure_optimizers(self) -> Any:
        """The optimiser with its step timed."""
        made = super().configure_optimizers()
        lap = ExitStack()
        made["optimizer"].register_step_pre_hook(lambda *_: lap.enter_context(self.clock.part("backward")) and None)
        made["optimizer"].register_step_post_hook(lambda *_: lap.close())
        return made


def run(
    policy: Any, batch: list[Any], modalities: tuple[str, ...], reward: Any, group: int, length: int, steps: int,
    token_budget: int = 16384,
) -> Clock:  # fmt: skip
    """`steps` iterations on one batch of samples."""
    algo = Timed(
        policy, reward, Taxonomy("none", ()), OptimizerSettings(1e-6, "constant"), modalities, 0, GRPOLoss(beta=0.04), steps,
        len(batch), group, length, token_budget=token_budget,
    )  # fmt: skip
    algo.clock = Clock()
    algo.time_forward_passes()
    with tempfile.TemporaryDirectory() as folder:
        trainer = pl.Trainer(
            accelerator="cpu", devices=1, max_epochs=1, logger=False, enable_checkpointing=False, default_root_dir=folder,
            enable_progress_bar=False, enable_model_summary=False,
        )  # fmt: skip
        trainer.fit(algo, DataLoader([batch] * steps, batch_size=None, collate_fn=None))
    return algo.clock
