"""The order of training samples: a pure function of (seed, step), so that a resumed run takes up the very next batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

import numpy as np
from torch.utils.data import Sampler

T = TypeVar("T")
Share = tuple[int, int]  # which process of how many
Draw = tuple[int, int]  # which sample, and in which pass over the data it is shown
_FRACTIONS = 2**20  # weights and offsets are multiples of 1 / this, so that their sums are exact


def own(batch: Sequence[T], share: Share) -> list[T]:
    """A process' part of a batch: in a row, and as long as the others' or one shorter than those before it."""
    first, last = (-(-len(batch) * k // share[1]) for k in (share[0], share[0] + 1))
    return list(batch[first:last])


class DevBatches(Sampler[list[int]]):
    """Samples 0 to `count` in batches of `size`, and of each the part that is this process' own; it may be empty.

    So every process sees as many batches, and no sample is seen twice.
    """

    def __init__(self, count: int, size: int, share: Share = (0, 1)) -> None:
        self.count, self.size, self.share = count, size, share

    def __len__(self) -> int:
        return -(-self.count // self.size)

    def __iter__(self) -> Iterator[list[int]]:
        for start in range(0, self.count, self.size):
            yield own(range(start, min(start + self.size, self.count)), self.share)


class StepBatches(Sampler[list[Draw]]):
    """Batch number `step` for `step` in [cursor, steps): pass after pass over the samples, each in its own order.

    A run is one Lightning epoch of `steps` batches. A batch may span two passes, so none is ever smaller than the
    others; a sample is seen again only after all others of its pass. A sample of weight w is shown w times in a pass: for 2.5,
    two or three times in turn.

    Within every `window` batches the samples are sorted by `lengths`, so that long ones share batches and little is padded; the
    batches then come in random order.

    Of several processes each draws its own part of every batch (`share`), which must divide by their number.
    """

    def __init__(
        self, weights: Sequence[float], batch_size: int, steps: int, seed: int, lengths: Sequence[int] | None = None,
        window: int = 1,
    ) -> None:  # fmt: skip
        if batch_size > sum(weights):
            raise ValueError(
                f"a batch of {batch_size} needs at least as many samples, there are {sum(weights):g}; lower batch_size"
            )
        self.weights = np.round(np.asarray(weights, dtype=np.float64) * _FRACTIONS) / _FRACTIONS
        self.batch_size, self.steps, self.seed = batch_size, steps, seed
        self.lengths = None if lengths is None else np.asarray(lengths)
        self.window = window if lengths is not None else 1
        self.cursor = 0
        self.share: Share = (0, 1)
        ranks = np.random.default_rng([seed, 0, 0]).permutation(len(weights))
        self._offsets = np.floor(ranks / len(weights) * _FRACTIONS) / _FRACTIONS
        self._starts = [0]  # of each pass, in samples
        self._passes: dict[int, np.ndarray] = {}
        self._windows: dict[int, list[list[Draw]]] = {}

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[list[Draw]]:
        for step in range(self.cursor, self.steps):
            yield own(self.batch(step), self.share)

    def batch(self, step: int) -> list[Draw]:
        """The samples of batch `step`."""
        number, place = divmod(step, self.window)
        if number not in self._windows:
            self._windows = {number: self._cut(number)}
        return self._windows[number][place]

    def _cut(self, number: int) -> list[list[Draw]]:
        """The batches of a window."""
        first, last = number * self.window, min((number + 1) * self.window, max(self.steps, number * self.window + 1))
        draws = [self._draw(position) for position in range(first * self.batch_size, last * self.batch_size)]
        order = np.random.default_rng([self.seed, 1, number]).permutation(last - first)
        if self.lengths is not None and self.window > 1:
            lengths = self.lengths[[index for index, _ in draws]]
            draws = [draws[i] for i in np.argsort(lengths, kind="stable")]
        else:
            order = np.arange(last - first)
        return [draws[i * self.batch_size : (i + 1) * self.batch_size] for i in order]

    def _draw(self, position: int) -> Draw:
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
        ends = [np.floor(k * self.weights + self._offsets) for k in (number, number + 1)]
        return (ends[1] - ends[0]).astype(np.int64)
