"""The order of training samples: a pure function of (seed, step), so that a resumed run continues with the next batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

import numpy as np
from torch.utils.data import Sampler

T = TypeVar("T")
Replica = tuple[int, int]  # (rank, number of processes)
Draw = tuple[int, int]  # (number of a sample, number of the pass over the data in which it is shown)
_FRACTIONS = 2**20  # weights and offsets are multiples of 1 / this, so that their sums are exact


def replica_part(batch: Sequence[T], replica: Replica) -> list[T]:
    """A process' contiguous part of a batch; where it does not divide evenly, the first processes have one sample more."""
    rank, processes = replica
    first, last = (-(-len(batch) * k // processes) for k in (rank, rank + 1))
    return list(batch[first:last])


class DevBatches(Sampler[list[int]]):
    """Samples 0 to `count` in batches of `size`, of which each process gets its part; that may be empty.

    So every process runs as many batches as the others, and no sample is counted twice.
    """

    def __init__(self, count: int, size: int, replica: Replica = (0, 1)) -> None:
        self.count, self.size, self.replica = count, size, replica

    def __len__(self) -> int:
        return -(-self.count // self.size)

    def __iter__(self) -> Iterator[list[int]]:
        for start in range(0, self.count, self.size):
            yield replica_part(range(start, min(start + self.size, self.count)), self.replica)


class StepBatches(Sampler[list[Draw]]):
    """The training batches `cursor` to `steps`: pass after pass over the samples, each pass in its own random order.

    A run is one Lightning epoch of `steps` batches. A batch may span two passes, so none is smaller than the others; a sample
    is shown again only after all others of its pass. A sample of weight w is shown w times in a pass: for 2.5, two or three
    times in turn.

    Args:
        weights: of the samples.
        batch_size: samples of a batch over all processes; a process draws its part of every batch (`replica`).
        lengths: of the samples. Within every `window` batches samples are sorted by it, so that long ones share batches and
            little is padded; the batches then come in random order.
    """

    def __init__(
        self,
        weights: Sequence[float],
        batch_size: int,
        steps: int,
        seed: int,
        lengths: Sequence[int] | None = None,
        window: int = 1,
    ) -> None:
        if batch_size > sum(weights):
            raise ValueError(
                f"a batch of {batch_size} needs at least as many samples, there are {sum(weights):g}; lower batch_size"
            )
        self.weights = np.round(np.asarray(weights, dtype=np.float64) * _FRACTIONS) / _FRACTIONS
        self.batch_size, self.steps, self.seed = batch_size, steps, seed
        self.lengths = None if lengths is None else np.asarray(lengths)
        self.window = window if lengths is not None else 1
        self.cursor = 0
        self.replica: Replica = (0, 1)
        # a fraction in [0, 1) for each sample, evenly spread: in which passes it gets the extra showing of its weight's fraction
        order = np.random.default_rng([seed, 0, 0]).permutation(len(weights))
        self._offsets = np.floor(order / len(weights) * _FRACTIONS) / _FRACTIONS
        self._starts = [0]  # position of the first sample of each pass
        self._passes: dict[int, np.ndarray] = {}  # the last two passes: a batch may span both
        self._windows: dict[int, list[list[Draw]]] = {}  # the last window

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[list[Draw]]:
        for step in range(self.cursor, self.steps):
            yield replica_part(self.batch(step), self.replica)

    def batch(self, step: int) -> list[Draw]:
        """The samples of batch `step`, over all processes."""
        number, index = divmod(step, self.window)
        if number not in self._windows:
            self._windows = {number: self._window_batches(number)}
        return self._windows[number][index]

    def _window_batches(self, number: int) -> list[list[Draw]]:
        """The batches of a window, sorted by length within it."""
        first, last = number * self.window, min((number + 1) * self.window, max(self.steps, number * self.window + 1))
        draws = [self._draw(position) for position in range(first * self.batch_size, last * self.batch_size)]
        order = np.random.default_rng([self.seed, 1, number]).permutation(last - first)
        if self.lengths is not None and self.window > 1:
            lengths = self.lengths[[sample for sample, _ in draws]]
            draws = [draws[i] for i in np.argsort(lengths, kind="stable")]
        else:
            order = np.arange(last - first)
        return [draws[i * self.batch_size : (i + 1) * self.batch_size] for i in order]

    def _draw(self, position: int) -> Draw:
        """The sample at a position of the whole run, in which passes follow one another."""
        while self._starts[-1] <= position:
            self._starts.append(self._starts[-1] + int(self._counts(len(self._starts) - 1).sum()))
        number = int(np.searchsorted(self._starts, position, side="right")) - 1
        if number not in self._passes:
            shown = np.repeat(np.arange(len(self.weights)), self._counts(number))
            order = np.random.default_rng([self.seed, number]).permutation(len(shown))
            self._passes = {k: v for k, v in self._passes.items() if k >= number - 1} | {number: shown[order]}
        return int(self._passes[number][position - self._starts[number]]), number

    def _counts(self, number: int) -> np.ndarray:
        """How often each sample is shown in a pass."""
        shown_before, shown_after = (np.floor(k * self.weights + self._offsets) for k in (number, number + 1))
        return (shown_after - shown_before).astype(np.int64)
