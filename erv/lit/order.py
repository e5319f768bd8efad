"""The order of training samples: a pure function of (seed, step), so that a resumed run takes up the very next batch."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler


class StepBatches(Sampler[list[int]]):
    """Batch number `step` for `step` in [cursor, steps): pass after pass over `size` samples, each in its own order.

    A run is one Lightning epoch of `steps` batches. A batch may span two passes, so none is ever smaller than the
    others; a sample is seen again only after all others of its pass.
    """

    def __init__(self, size: int, batch_size: int, steps: int, seed: int) -> None:
        if batch_size > size:
            raise ValueError(
                f"a batch of {batch_size} needs at least as many samples, there are {size}; lower batch_size"
            )
        self.size, self.batch_size, self.steps, self.seed = size, batch_size, steps, seed
        self.cursor = 0

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[list[int]]:
        for step in range(self.cursor, self.steps):
            yield self.batch(step)

    def batch(self, step: int) -> list[int]:
        """The indices of batch `step`."""
        positions = range(step * self.batch_size, (step + 1) * self.batch_size)
        orders = {number: self._order(number) for number in {p // self.size for p in positions}}
        return [int(orders[p // self.size][p % self.size]) for p in positions]

    def _order(self, number: int) -> np.ndarray:
        return np.random.default_rng([self.seed, number]).permutation(self.size)
