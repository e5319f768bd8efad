"""Optimiser and learning-rate schedule, as one plain record."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR
from transformers import get_scheduler


@dataclass(frozen=True)
class Optim:
    """AdamW and a schedule.

    `schedule` is "one_cycle" or a name of `transformers.get_scheduler` ("linear", "cosine", "constant_with_warmup", …);
    `warmup` is the number of warm-up steps, or their share of all steps when below 1. `max_grad_norm` 0 means no clipping.
    """

    lr: float
    schedule: str = "cosine"
    warmup: float = 0.03
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    max_grad_norm: float = 1.0

    def build(self, parameters: Iterable[nn.Parameter], steps: int) -> tuple[torch.optim.AdamW, LRScheduler]:
        """The optimiser over those parameters that require a gradient, and its schedule over `steps` steps."""
        trained = [p for p in parameters if p.requires_grad]
        optimiser = torch.optim.AdamW(
            trained, lr=self.lr, betas=(self.betas[0], self.betas[1]), eps=self.eps, weight_decay=self.weight_decay
        )
        warmup = int(self.warmup) if self.warmup >= 1 else int(self.warmup * steps)
        if self.schedule == "one_cycle":
            if steps < 3:
                raise ValueError(f"one_cycle rises and falls, so it needs 3 steps; this run has {steps}; train longer")
            # torch divides by the warm-up's length less one step
            return optimiser, OneCycleLR(optimiser, self.lr, total_steps=steps, pct_start=max(warmup, 2) / steps)
        return optimiser, get_scheduler(self.schedule, optimiser, num_warmup_steps=warmup, num_training_steps=steps)
