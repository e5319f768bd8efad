"""Group-relative advantages (DeepSeekMath, arXiv 2402.03300): how much better a completion is than its prompt's others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Literal

import torch
from torch import Tensor

Scale = Literal["group", "batch", "none"]
# Added to the standard deviation, as in TRL and the released ERV code; not a lower bound of it.
EPSILON = 1e-4


@dataclass(frozen=True, slots=True)
class Advantages:
    """Advantages of N = B * G completions, prompt-major, with the statistics they were made from."""

    values: Tensor
    """The advantages `[N]`; 0 for a completion without any reward."""
    totals: Tensor
    """Weighted sums of the rewards `[N]`; NaN for a completion without any reward."""
    group_mean: Tensor
    """Mean total of each group, `[B]`."""
    group_std: Tensor
    """Unbiased standard deviation of the totals of each group, `[B]`."""
    zero_std: Tensor
    """`[N]` bool: the standard deviation that divides this row is zero. TRL's frac_reward_zero_std is its mean."""
    zero_variance: Tensor
    """`[B]` bool: no reward differs within the group, so its advantages are zero. DAPO's dynamic sampling replaces these."""

    def part(self, number: int, count: int) -> Advantages:
        """Part `number` of `count` equal ones: the completions of one process, whose prompts adjoin in the whole batch."""
        return Advantages(*(getattr(self, f.name).chunk(count)[number] for f in fields(self)))


def advantages(
    rewards: Tensor,
    weights: Sequence[float] | Tensor,
    group_size: int,
    scale: Scale = "group",
    normalise_then_sum: bool = False,
) -> Advantages:
    """Turn the rewards of a whole batch into advantages.

    A_i = (R_i - mean_group(R)) / (std(R) + 1e-4) with R_i = sum_k w_k R_ik and the unbiased standard deviation.

    Args:
        rewards: `[N, K]` of K reward functions, prompt-major. NaN is a reward that could not be computed: it is left out of
            sums, means and deviations, instead of counting as 0.
        weights: K weights w_k.
        group_size: completions per prompt, G; at least 2.
        scale: the deviation is that of the group (the paper), of the batch (arXiv 2508.08221), or the division is left out
            (Dr. GRPO, arXiv 2503.20783): dividing by the group's makes groups of nearly equal rewards count as much.
        normalise_then_sum: GDPO: every reward is normalised within its group before the weighted sum, and the sums are
            normalised over the batch, so that a reward with a small spread is not drowned by one with a large spread.
            `scale` must then be "group".
    """
    weight = torch.as_tensor(weights, dtype=rewards.dtype, device=rewards.device)
    _check_arguments(rewards, weight, group_size, scale, normalise_then_sum)
    totals = _weighted_sum(rewards, weight)
    grouped = totals.view(-1, group_size)
    group_mean, group_std = grouped.nanmean(1), nanstd(grouped, 1)
    zero_variance = _is_zero(group_std)
    if normalise_then_sum:
        by_group = rewards.view(-1, group_size, rewards.shape[1])
        reward_std = nanstd(by_group, 1)  # [B, K]
        zero_variance = _is_zero(reward_std).all(1)
        normalised = (by_group - by_group.nanmean(1, keepdim=True)) / (reward_std.unsqueeze(1) + EPSILON)
        sums = _weighted_sum(normalised.view_as(rewards), weight)
        centred, std = sums - sums.nanmean(), nanstd(sums, 0).expand_as(sums)
    else:
        centred = totals - group_mean.repeat_interleave(group_size)
        std = nanstd(totals, 0).expand_as(totals) if scale == "batch" else group_std.repeat_interleave(group_size)
    values = centred if scale == "none" else centred / (std + EPSILON)
    return Advantages(values.nan_to_num(nan=0.0), totals, group_mean, group_std, _is_zero(std), zero_variance)


def nanstd(values: Tensor, dim: int) -> Tensor:
    """Unbiased standard deviation along `dim` without the NaNs; 0 where fewer than two values are left."""
    count = (~values.isnan()).sum(dim)
    squares = (values - values.nanmean(dim, keepdim=True)).square().nansum(dim)
    return (squares / (count - 1).clamp(min=1)).sqrt()


def reward_metrics(rewards: Tensor, names: Sequence[str], advantages: Advantages) -> dict[str, Tensor]:
    """Reward statistics of a batch under TRL's metric names; `rewards` `[N, K]`, one name per column."""
    if len(names) != rewards.shape[1]:
        raise ValueError(f"one name per reward column: got {len(names)} names for {rewards.shape[1]} columns")
    metrics = {}
    for name, column in zip(names, rewards.unbind(1), strict=True):
        metrics[f"rewards/{name}/mean"] = column.nanmean()
        metrics[f"rewards/{name}/std"] = nanstd(column, 0)
    metrics["reward"] = advantages.totals.nanmean()
    metrics["reward_std"] = nanstd(advantages.totals, 0)
    metrics["frac_reward_zero_std"] = advantages.zero_std.float().mean()
    return metrics


def _is_zero(std: Tensor) -> Tensor:
    return torch.isclose(std, torch.zeros_like(std))  # equal rewards whose mean is rounded differ from it by an ulp


def _weighted_sum(rewards: Tensor, weight: Tensor) -> Tensor:
    """Weighted sum over the rewards `[N, K]` that are not NaN; NaN for a row without any."""
    total = (rewards * weight).nansum(1)
    return total.masked_fill(rewards.isnan().all(1), torch.nan)


def _check_arguments(rewards: Tensor, weight: Tensor, group_size: int, scale: str, normalise_then_sum: bool) -> None:
    if rewards.ndim != 2 or weight.shape != rewards.shape[1:]:
        raise ValueError(
            f"rewards must be [N, K] with K weights; got rewards {tuple(rewards.shape)} and {weight.numel()} weights"
        )
    if group_size < 2 or rewards.shape[0] % group_size:
        raise ValueError(
            f"group_size must be at least 2 and divide the number of completions; got group_size={group_size} for "
            f"{rewards.shape[0]} completions; set it to the number of completions sampled per prompt"
        )
    if scale not in ("group", "batch", "none"):
        raise ValueError(f"scale must be 'group', 'batch' or 'none'; got {scale!r}")
    if normalise_then_sum and scale != "group":
        raise ValueError(f"normalise_then_sum scales each reward by its group; set scale='group', got {scale!r}")
