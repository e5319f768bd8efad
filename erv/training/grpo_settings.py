"""The settings of GRPO, grouped by what they belong to. TRL's name is given where it differs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch

from erv.engine.sampling import Sampling
from erv.grpo.advantages import Scale
from erv.grpo.importance_sampling import ImportanceCorrection
from erv.grpo.loss import GRPOLoss

RolloutDtype = Literal["bfloat16", "float16"]
ZeroSpread = Literal["keep", "leave_out", "resample"]


@dataclass(frozen=True)
class RolloutSettings:
    """How completions are sampled."""

    group_size: int = 8
    """Completions per clip (TRL: num_generations)."""

    max_new_tokens: int = 512
    """Most tokens of a completion (TRL: max_completion_length)."""

    sampling: Sampling = field(default_factory=Sampling)
    """Temperature and truncation of the distribution."""

    dtype: RolloutDtype | None = None
    """Sample under autocast to this type; None: in the trainer's precision. `LossSettings.correction` makes up for it."""

    zero_spread: ZeroSpread = "keep"
    """What becomes of a group whose completions all earn the same (`Advantages.silent`), so that its advantages are zero:
    "keep" trains on its KL term, "leave_out" drops it from the update, "resample" samples it again and then drops it."""

    max_resamples: int = 2
    """How often such groups are sampled again in one iteration."""

    @property
    def autocast_dtype(self) -> torch.dtype | None:
        """`dtype` as torch's type."""
        return getattr(torch, self.dtype) if self.dtype else None


@dataclass(frozen=True)
class AdvantageSettings:
    """How rewards become advantages; see `erv.grpo.advantages.advantages`."""

    scale: Scale = "group"
    """What centred rewards are divided by (TRL: scale_rewards): the deviation of the group, of the batch, or nothing."""

    normalise_then_sum: bool = False
    """Normalise each reward before the weighted sum (TRL: multi_objective_aggregation=normalize_then_sum)."""


@dataclass(frozen=True)
class LossSettings:
    """What is minimised."""

    objective: GRPOLoss
    """Form of the loss, clip range and weight of the KL term."""

    mask_overlong: bool = False
    """Do not train on completions without an end token (TRL: mask_truncated_completions)."""

    correction: ImportanceCorrection | None = None
    """Importance weights for completions that were sampled in another precision (`RolloutSettings.dtype`)."""


@dataclass(frozen=True)
class UpdateSettings:
    """How the optimizer steps of an iteration are taken."""

    updates: int = 1
    """Optimizer steps per rollout (TRL: num_iterations); 1 in the paper."""

    token_budget: int = 16384
    """Most tokens of a micro-batch, prompts included; halved when memory is short."""

    max_nonfinite: int = 3
    """So many steps in a row whose loss or gradient is not finite end the run."""

    verify_shared_prefix: bool = True
    """Compare gradients through the shared prefix with the plain computation, once, in the first step."""


@dataclass(frozen=True)
class ValidationSettings:
    """How completions for the dev curve are sampled."""

    temperature: float = 0.7
    """Sampling temperature; one completion per dev clip."""
