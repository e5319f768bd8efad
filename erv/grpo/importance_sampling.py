"""Weights and masks that correct a loss for stale or foreign samples, and the choice of high-entropy tokens."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

MismatchMode = Literal["token_truncate", "token_mask", "sequence_truncate", "sequence_mask"]


def mismatch_ratio(
    old: Tensor,
    sampling: Tensor,
    mask: Tensor,
    mode: MismatchMode = "sequence_mask",
    clip_max: float | None = 3.0,
    clip_min: float | None = None,
) -> Tensor:
    """Importance ratio exp(old - sampling) for rollouts made in another precision or by another engine.

    old, sampling, mask `[N, C]`; log-probs of the same tokens by the trainer and by the sampler. The ratio is per token
    `[N, C]` or the product over a sequence `[N, 1]`; outside [clip_min, clip_max] it is clamped or set to 0.
    """
    if clip_min is not None and clip_max is not None and clip_min >= clip_max:
        raise ValueError(f"clip_min must be below clip_max; got clip_min={clip_min}, clip_max={clip_max}")
    level, _, action = mode.partition("_")
    if level not in ("token", "sequence") or action not in ("truncate", "mask"):
        raise ValueError(f"mode must be token_ or sequence_ followed by truncate or mask; got {mode!r}")
    difference = ((old - sampling) * mask).nan_to_num(nan=0.0)  # NaN: the sampler gave no log-prob, no correction
    if level == "sequence":
        difference = difference.sum(-1, keepdim=True)
    ratio = difference.exp()
    low, high = -math.inf if clip_min is None else clip_min, math.inf if clip_max is None else clip_max
    if action == "truncate":
        return ratio.clamp(low, high)
    return ratio.masked_fill((ratio < low) | (ratio > high), 0.0)


@dataclass(frozen=True, slots=True)
class Correction:
    """`mismatch_ratio` with its settings: what makes up for a rollout in a lower precision."""

    mode: MismatchMode = "sequence_mask"
    clip_max: float | None = 3.0
    clip_min: float | None = None

    def __call__(self, old: Tensor, sampling: Tensor, mask: Tensor) -> Tensor:
        """The ratio, `[N, C]` or `[N, 1]`."""
        return mismatch_ratio(old, sampling, mask, self.mode, self.clip_max, self.clip_min)


def off_policy_keep(logps: Tensor, sampling: Tensor, mask: Tensor, advantages: Tensor, threshold: float) -> Tensor:
    """DeepSeek-V3.2's sequence mask `[N, 1]`: 0 where A < 0 and the mean of sampling - logps exceeds `threshold`."""
    drift = ((sampling - logps.detach()).nan_to_num(nan=0.0) * mask).sum(-1) / mask.sum(-1).clamp(min=1)
    return ((advantages >= 0) | (drift <= threshold)).to(logps.dtype).unsqueeze(-1)


def high_entropy_mask(entropy: Tensor, mask: Tensor, top: float) -> Tensor:
    """Mark `[N, C]` the real tokens among the `top` share of entropies of the whole batch (quantile included).

    Call it once for the batch, before micro-batches are cut: the threshold is a quantile over all of its tokens.
    """
    if not 0 < top <= 1:
        raise ValueError(f"the share of tokens to keep must lie in (0, 1]; got {top}")
    real = mask.bool()
    if not real.any():
        return real
    threshold = torch.quantile(entropy[real].float(), 1 - top)
    return (entropy >= threshold) & real


def gamma_weight(log_ratio: Tensor, mask: Tensor, advantages: Tensor, mismatch: Tensor | None) -> Tensor:
    """VESPO's weight `[N, 1]`: phi(w) = exp(l) w^k exp(-l w), w the ratio of the sequences, so that phi(1) = 1.

    k, l = 2, 3 for A >= 0 and 3, 2 for A < 0. `mismatch` `[N, C]` multiplies w by the sampler's ratio.
    """
    low, high = math.log(1e-8), 20.0
    log_w = (log_ratio.detach().clamp(-high, high) * mask).sum(-1)
    if mismatch is not None:
        log_w = log_w + mismatch.log().clamp(low, high).sum(-1)
    log_w = log_w.clamp(low, high)
    good = advantages >= 0
    power = torch.where(good, 2.0, 3.0)
    rate = torch.where(good, 3.0, 2.0)
    return (rate + power * log_w - rate * log_w.exp()).exp().unsqueeze(-1)
