"""Means over a validation round."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torchmetrics import Metric


class Means(Metric):
    """The weighted means of several values over batches and processes; a process without a batch does no harm."""

    full_state_update = False
    sums: Tensor
    weights: Tensor

    def __init__(self, *names: str) -> None:
        super().__init__()
        self.names = names
        self.add_state("sums", torch.zeros(len(names)), dist_reduce_fx="sum")
        self.add_state("weights", torch.zeros(()), dist_reduce_fx="sum")

    def update(self, values: Mapping[str, Tensor], weight: float) -> None:
        """Add a batch: the mean of each value over it, and how much it counts."""
        self.sums = self.sums + torch.stack([values[name].detach().float() for name in self.names]) * weight
        self.weights = self.weights + weight

    def compute(self) -> dict[str, Tensor]:
        """The means by name."""
        return dict(zip(self.names, (self.sums / self.weights).unbind(), strict=True))
