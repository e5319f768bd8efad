"""The base class of the training stages: tower warm-up, verifier, SFT and GRPO.

`erv.train` and the data modules learn from it which data a stage needs, how long it runs and what remains of it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import lightning.pytorch as pl
from torch import nn

from erv.distributed.sharding import Sharding, sharding_of
from erv.training.callbacks.nan_guard import NonFiniteCounter
from erv.training.optim import OptimizerSettings
from erv.types import Clip

if TYPE_CHECKING:
    from erv.policy.policy import Policy

Inputs = Literal["features", "pixels", "sentences"]


class Stage(pl.LightningModule, ABC):
    """A LightningModule that says what a training stage is.

    Stages whose steps Lightning takes get `configure_optimizers`, gradient clipping and the guard against non-finite steps
    (`callbacks/nan_guard.py`) from here; a stage with manual optimization (GRPO) does these itself.
    """

    inputs: ClassVar[Inputs]
    """What a row of its data holds: a clip with tower features, a clip with pixels and spectrogram, or a labelled sentence."""

    model: nn.Module
    """What is trained; some of its parts may be frozen."""

    policy: Policy | None = None
    """The policy that `model` belongs to; None for a stage that trains a verifier."""

    optim: OptimizerSettings
    """Optimizer and schedule."""

    batch_size: int
    """Rows of a batch over all processes."""

    epochs: float | None
    """Passes over the training rows."""

    nonfinite: NonFiniteCounter
    """Counts the steps whose loss or gradient is not finite."""

    completions: Sequence[dict[str, Any]] = ()
    """What the last batch has sampled, as rows of completions.parquet; only rank 0 has them."""

    def check_data(self, clips: Sequence[Clip]) -> None:
        """Raise ValueError when the stage cannot be trained on these training clips."""

    @property
    def row_length(self) -> Callable[[Clip], int] | None:
        """The length of a clip's text in tokens, if clips of similar length are to share batches; None if it is no matter."""
        return None

    def steps(self, rows: int) -> int:
        """The number of batches in a run over `rows` training rows; a clip's weight is the number of rows it counts for."""
        if not isinstance(self.epochs, int):
            raise TypeError(f"{type(self).__name__} trains a whole number of epochs, got {self.epochs}")
        return self.epochs * rows // self.batch_size

    @property
    def sharding(self) -> Sharding:
        """How the processes of this run hold the weights."""
        return sharding_of(self.trainer)

    def part_sizes(self) -> Mapping[str, tuple[int, int]]:
        """(parameters, trained parameters) of each part of the policy."""
        return self.policy.model.part_sizes() if self.policy is not None else {}

    def configure_optimizers(self) -> Any:
        """AdamW with its schedule per step."""
        optimizer, schedule = self.optim.build(self.parameters(), self.trainer.estimated_stepping_batches)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    @abstractmethod
    def save(self, folder: str) -> None:
        """Write the trained model; on rank 0, with whole weights."""

    def measure(self, data: Any) -> dict[str, Any] | None:
        """The figures of the trained model on the stage's own `data` (its data module).

        None: the policy is measured by generation and judges instead, as the config's `evaluation` says.
        """
        return None
