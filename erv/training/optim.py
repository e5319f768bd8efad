"""Optimizer and learning-rate schedule."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR
from transformers import get_scheduler


@dataclass(frozen=True)
class OptimizerSettings:
    """AdamW with a learning-rate schedule per step."""

    lr: float
    """Highest learning rate."""

    schedule: str = "cosine"
    """"one_cycle" or a name of `transformers.get_scheduler`: "linear", "cosine", "constant_with_warmup", …"""

    warmup: float = 0.03
    """Warm-up steps, or their fraction of all steps when below 1."""

    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8

    max_grad_norm: float = 1.0
    """The norm that gradients are clipped to; 0: no clipping."""

    def build(self, parameters: Iterable[nn.Parameter], steps: int) -> tuple[torch.optim.AdamW, LRScheduler]:
        """The optimizer over those parameters that require a gradient, and its schedule over `steps` steps."""
        trained = [p for p in parameters if p.requires_grad]
        optimizer = torch.optim.AdamW(
            trained, lr=self.lr, betas=(self.betas[0], self.betas[1]), eps=self.eps, weight_decay=self.weight_decay
        )
        warmup = int(self.warmup) if self.warmup >= 1 else int(self.warmup * steps)
        if self.schedule == "one_cycle":
            if steps < 3:
                raise ValueError(f"one_cycle rises and falls, so it needs 3 steps; this run has {steps}; train longer")
            # torch divides by the warm-up's length minus one step, so two steps are the least
            return optimizer, OneCycleLR(optimizer, self.lr, total_steps=steps, pct_start=max(warmup, 2) / steps)
        return optimizer, get_scheduler(self.schedule, optimizer, num_warmup_steps=warmup, num_training_steps=steps)
