"""Group-relative advantages: how much better a completion is than the others of its prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Literal

import torch
from torch import Tensor

Scale = Literal["group", "batch", "none"]
EPSILON = 1e-4  # added to the standard deviation, as in TRL and the released loop; it is not a clamp


@dataclass(frozen=True, slots=True)
class Advantages:
    """Advantages of N completions and what they were made from; rows are prompt-major, N = B * G.

    values: `[N]`, 0 for a completion without any reward. totals: `[N]`, weighted sum of the rewards, NaN without any.
    group_mean, group_std: `[B]` of the totals. zero_spread: `[N]` bool, the spread that scales this row is zero.
    silent: `[B]` bool, no reward tells the completions of this group apart, so it says nothing about the policy.
    """

    values: Tensor
    totals: Tensor
    group_mean: Tensor
    group_std: Tensor
    zero_spread: Tensor
    silent: Tensor

    def part(self, number: int, count: int) -> Advantages:
        """Part `number` of `count` equal ones: those of one process' prompts."""
        return Advantages(*(getattr(self, f.name).chunk(count)[number] for f in fields(self)))


def advantages(
    rewards: Tensor,
    weights: Sequence[float] | Tensor,
    group_size: int,
    scale: Scale = "group",
    normalise_then_sum: bool = False,
) -> Advantages:
    """Turn the rewards `[N, K]` of K reward functions into advantages `[N]`.

    A_i = (R_i - mean) / (std + 1e-4) with R_i = sum_k w_k R_ik, the mean over the group and the unbiased std over the
    group, over the batch, or left out (`scale`). With `normalise_then_sum` (GDPO) every reward is normalised within its
    group before the weighted sum, and the sums are normalised over the batch; `scale` must then be "group".
    NaN marks a reward that could not be computed: it is left out of sum, mean and std.
    """
    weight = torch.as_tensor(weights, dtype=rewards.dtype, device=rewards.device)
    _check(rewards, weight, group_size, scale, normalise_then_sum)
    totals = _weighted_sum(rewards, weight)
    grouped = totals.view(-1, group_size)
    group_mean, group_std = grouped.nanmean(1), nanstd(grouped, 1)
    silent = _is_zero(group_std)
    if normalise_then_sum:
        parts = rewards.view(-1, group_size, rewards.shape[1])
        part_std = nanstd(parts, 1)
        silent = _is_zero(part_std).all(1)
        parts = (parts - parts.nanmean(1, keepdim=True)) / (part_std.unsqueeze(1) + EPSILON)
        sums = _weighted_sum(parts.view_as(rewards), weight)
        centred, spread = sums - sums.nanmean(), nanstd(sums, 0).expand_as(sums)
    else:
        centred = totals - group_mean.repeat_interleave(group_size)
        spread = nanstd(totals, 0).expand_as(totals) if scale == "batch" else group_std.repeat_interleave(group_size)
    values = centred if scale == "none" else centred / (spread + EPSILON)
    return Advantages(values.nan_to_num(nan=0.0), totals, group_mean, group_std, _is_zero(spread), silent)


def nanstd(values: Tensor, dim: int) -> Tensor:
    """Unbiased standard deviation along `dim` without the NaNs; 0 where fewer than two values are left."""
    count = (~values.isnan()).sum(dim)
    squares = (values - values.nanmean(dim, keepdim=True)).square().nansum(dim)
    return (squares / (count - 1).clamp(min=1)).sqrt()


def reward_metrics(rewards: Tensor, names: Sequence[str], advantages: Advantages) -> dict[str, Tensor]:
    """The reward statistics of one batch under TRL's names; `rewards` `[N, K]`, one name per column."""
    if len(names) != rewards.shape[1]:
        raise ValueError(f"one name per reward column: got {len(names)} names for {rewards.shape[1]} columns")
    metrics = {}
    for name, column in zip(names, rewards.unbind(1), strict=True):
        metrics[f"rewards/{name}/mean"] = column.nanmean()
        metrics[f"rewards/{name}/std"] = nanstd(column, 0)
    metrics["reward"] = advantages.totals.nanmean()
    metrics["reward_std"] = nanstd(advantages.totals, 0)
    metrics["frac_reward_zero_std"] = advantages.zero_spread.float().mean()
    return metrics


def _is_zero(spread: Tensor) -> Tensor:
    return torch.isclose(spread, torch.zeros_like(spread))


def _weighted_sum(parts: Tensor, weight: Tensor) -> Tensor:
    total = (parts * weight).nansum(1)
    return total.masked_fill(parts.isnan().all(1), torch.nan)


def _check(rewards: Tensor, weight: Tensor, group_size: int, scale: str, normalise_then_sum: bool) -> None:
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
