"""Importance ratios and masks for samples that are not quite the policy's own, and the choice of high-entropy tokens."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

CorrectionMode = Literal["token_truncate", "token_mask", "sequence_truncate", "sequence_mask"]


def importance_ratio(
    old_logps: Tensor,
    sampling_logps: Tensor,
    mask: Tensor,
    mode: CorrectionMode = "sequence_mask",
    clip_max: float | None = 3.0,
    clip_min: float | None = None,
) -> Tensor:
    """Importance ratio pi_trainer / pi_sampler of rollouts that were sampled in another precision or by another engine.

    The same weights give slightly different probabilities in bf16 and fp32, or in two engines, so the samples are off-policy
    without any update. The ratio corrects the expectation: truncated importance sampling (TIS) bounds it, masked importance
    sampling (MIS) drops what lies outside. TRL's `vllm_importance_sampling_mode`.

    Args:
        old_logps, sampling_logps: log-probs `[N, C]` of the same tokens by the trainer and by the sampler; NaN where the
            sampler gave none, which counts as ratio 1.
        mask: `[N, C]`, 1 for real tokens.
        mode: the ratio is per token, or the product over the sequence; out of bounds it is truncated or set to 0 (mask).
        clip_max, clip_min: the bounds; None for none.

    Returns:
        `[N, C]` per token or `[N, 1]` per sequence.
    """
    if clip_min is not None and clip_max is not None and clip_min >= clip_max:
        raise ValueError(f"clip_min must be below clip_max; got clip_min={clip_min}, clip_max={clip_max}")
    level, _, action = mode.partition("_")
    if level not in ("token", "sequence") or action not in ("truncate", "mask"):
        raise ValueError(f"mode must be token_ or sequence_ followed by truncate or mask; got {mode!r}")
    log_ratio = ((old_logps - sampling_logps) * mask).nan_to_num(nan=0.0)
    if level == "sequence":
        log_ratio = log_ratio.sum(-1, keepdim=True)
    ratio = log_ratio.exp()
    low, high = -math.inf if clip_min is None else clip_min, math.inf if clip_max is None else clip_max
    if action == "truncate":
        return ratio.clamp(low, high)
    return ratio.masked_fill((ratio < low) | (ratio > high), 0.0)


@dataclass(frozen=True, slots=True)
class ImportanceCorrection:
    """Settings of `importance_ratio`, as `algo.correction` of a config holds them: for rollouts in a lower precision."""

    mode: CorrectionMode = "sequence_mask"
    """Ratio per token or per sequence; out of bounds it is truncated or the token or sequence is masked."""
    clip_max: float | None = 3.0
    """Upper bound of the ratio; None for none."""
    clip_min: float | None = None
    """Lower bound of the ratio; None for none."""

    def __call__(self, old_logps: Tensor, sampling_logps: Tensor, mask: Tensor) -> Tensor:
        """The ratio, `[N, C]` or `[N, 1]`."""
        return importance_ratio(old_logps, sampling_logps, mask, self.mode, self.clip_max, self.clip_min)


def off_policy_mask(
    logps: Tensor, sampling_logps: Tensor, mask: Tensor, advantages: Tensor, threshold: float
) -> Tensor:
    """Mask sequences that drifted too far off-policy and were bad anyway (off-policy sequence masking of DeepSeek-V3.2).

    Returns:
        `[N, 1]`: 0 where A < 0 and the mean over tokens of sampling_logps - logps exceeds `threshold`, 1 elsewhere.
    """
    drift = ((sampling_logps - logps.detach()).nan_to_num(nan=0.0) * mask).sum(-1) / mask.sum(-1).clamp(min=1)
    return ((advantages >= 0) | (drift <= threshold)).to(logps.dtype).unsqueeze(-1)


def high_entropy_mask(entropy: Tensor, mask: Tensor, top: float) -> Tensor:
    """Select the fraction `top` of the real tokens with the highest entropy ("Beyond the 80/20 rule", arXiv 2506.01939).

    Call it once for the whole batch, before micro-batches are cut: the threshold is a quantile over all of its tokens.

    Args:
        entropy, mask: `[N, C]`.
        top: fraction in (0, 1]; tokens at the quantile are included.

    Returns:
        `[N, C]` bool.
    """
    if not 0 < top <= 1:
        raise ValueError(f"the share of tokens to keep must lie in (0, 1]; got {top}")
    real = mask.bool()
    if not real.any():
        return real
    threshold = torch.quantile(entropy[real].float(), 1 - top)
    return (entropy >= threshold) & real


def vespo_weight(log_ratio: Tensor, mask: Tensor, advantages: Tensor, importance_ratio: Tensor | None) -> Tensor:
    """Weight of a sequence in the VESPO loss (arXiv 2602.10693): phi(w) = w^k exp(lam (1 - w)).

    w is the ratio of the whole sequence; phi(1) = 1. k, lam = 2, 3 for A >= 0 and 3, 2 for A < 0. Where clipping cuts the
    gradient off, this weight lets it fall softly.

    Args:
        log_ratio: logps - old_logps `[N, C]`; no gradient flows through the weight.
        mask: `[N, C]`.
        advantages: `[N]`.
        importance_ratio: that of the sampler, `[N, C]` or `[N, 1]`; multiplies w.

    Returns:
        `[N, 1]`.
    """
    log_min, log_max = (
        math.log(1e-8),
        20.0,
    )  # computed in logarithms: a product over hundreds of tokens under- or overflows
    log_w = (log_ratio.detach().clamp(-log_max, log_max) * mask).sum(-1)
    if importance_ratio is not None:
        log_w = log_w + importance_ratio.log().clamp(log_min, log_max).sum(-1)
    log_w = log_w.clamp(log_min, log_max)
    positive = advantages >= 0
    k = torch.where(positive, 2.0, 3.0)
    lam = torch.where(positive, 3.0, 2.0)
    return (lam + k * log_w - lam * log_w.exp()).exp().unsqueeze(-1)
