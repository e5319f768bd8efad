"""The clipped policy objective of GRPO and its relatives: log-probs in, (loss, metrics) out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from erv.grpo.importance_sampling import gamma_weight, off_policy_keep

Loss = Literal["grpo", "bnpo", "dr_grpo", "dapo", "cispo", "sapo", "luspo", "vespo"]
Metrics = dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class Objective:
    """What is minimised. The defaults are the released ERV loop with TRL's clip range.

    loss: form and aggregation, see `policy_loss`. level: "sequence" replaces each token's ratio by the geometric mean
    over its sequence (GSPO). beta: weight of the KL term to the reference. epsilon_low, epsilon_high: clip range; for
    `cispo` epsilon_high is the absolute cap of the ratio. delta: upper bound of the unclipped ratio.
    bias_corrected_kl: multiply the KL term by the ratio. off_policy_threshold: drop sequences with A < 0 that drifted
    further than this. max_completion_length: the constant divisor of `dr_grpo`. log_ratio_limit: log-ratios to the old
    policy and to the reference are clamped to +- this before exp, which fp32 survives up to 88; beyond it no gradient.
    """

    loss: Loss = "grpo"
    level: Literal["token", "sequence"] = "token"
    beta: float = 0.04
    epsilon_low: float = 0.2
    epsilon_high: float = 0.2
    delta: float | None = None
    bias_corrected_kl: bool = False
    off_policy_threshold: float | None = None
    max_completion_length: int | None = None
    log_ratio_limit: float = 20.0

    def __post_init__(self) -> None:
        if self.loss not in get_args(Loss):
            raise ValueError(f"loss must be one of {', '.join(get_args(Loss))}; got {self.loss!r}")
        if self.level not in ("token", "sequence"):
            raise ValueError(f"level must be 'token' or 'sequence'; got {self.level!r}")
        if self.beta < 0 or self.epsilon_low < 0 or self.epsilon_high < 0:
            raise ValueError(
                f"beta, epsilon_low and epsilon_high must not be negative; got {self.beta}, {self.epsilon_low}, "
                f"{self.epsilon_high}"
            )
        if not 0 < self.log_ratio_limit <= 88:
            raise ValueError(
                f"log_ratio_limit must lie in (0, 88], exp of more overflows in fp32; got {self.log_ratio_limit}; set 20"
            )
        if self.loss == "dr_grpo" and self.max_completion_length is None:
            raise ValueError("dr_grpo divides by a constant length; set max_completion_length to the rollout's limit")
        if self.loss == "vespo" and self.level != "token":
            raise ValueError("vespo forms its own sequence ratio from token ratios; set level='token'")


@dataclass(frozen=True, slots=True)
class Denominators:
    """Completions and real tokens of the whole optimiser step, counted once, before micro-batches are cut.

    Where gradients are averaged over processes, divide the counts of all processes by the number of processes.
    """

    rows: float
    tokens: float

    @classmethod
    def of(cls, mask: Tensor) -> Denominators:
        """Count the completions and tokens of `mask` `[N, C]`."""
        return cls(float(mask.shape[0]), float(mask.sum().clamp(min=1)))


def policy_loss(
    objective: Objective,
    denominators: Denominators,
    logps: Tensor,
    mask: Tensor,
    advantages: Tensor,
    *,
    old: Tensor | None = None,
    ref: Tensor | None = None,
    mismatch: Tensor | None = None,
    sampling: Tensor | None = None,
    keep: Tensor | None = None,
    entropy: Tensor | None = None,
) -> tuple[Tensor, Metrics]:
    """The loss of some rows of a step; over all of its micro-batches losses and metrics add up to those of the step.

    logps, mask, old, ref, sampling, entropy: `[N, C]`; advantages: `[N]`. old: log-probs before the first update, None
    for one update per rollout (ratio 1). ref: required when beta > 0, only measured when beta = 0. mismatch:
    `mismatch_ratio`, `[N, C]` or `[N, 1]`.
    sampling: the sampler's log-probs for the off-policy mask (default old). keep: `high_entropy_mask`.

        r = exp(logp - old)                                   k3 = exp(ref - logp) - (ref - logp) - 1
        l = -min(r A, clip(r, 1 - epsilon_low, 1 + epsilon_high) A)                  (paper; other forms: `_surrogate`)
        loss = sum_it w_it (keep_it mismatch_it l_it + beta k3_it)

    w_it is 1 / (rows * length_i) for grpo and sapo, 1 / tokens for bnpo, dapo, cispo and vespo,
    1 / (rows * max_completion_length) for dr_grpo, 1 / rows for luspo.
    """
    _check(objective, mask, {"logps": logps, "old": old, "ref": ref, "sampling": sampling, "entropy": entropy})
    mask = mask.to(logps.dtype)
    advantage = advantages.unsqueeze(1)
    old = logps.detach() if old is None else old
    log_ratio = logps - old
    if objective.level == "sequence":
        log_ratio = (log_ratio * mask).sum(1, keepdim=True) / mask.sum(1, keepdim=True).clamp(min=1)
    limit = objective.log_ratio_limit
    ratio = log_ratio.clamp(-limit, limit).exp()
    if objective.loss == "vespo":
        phi = gamma_weight(log_ratio, mask, advantages, mismatch)
        per_token = -phi * advantage * logps
    else:
        per_token = _surrogate(objective, ratio, advantage, logps)
    if objective.off_policy_threshold is not None:
        drifted_from = old if sampling is None else sampling
        per_token = per_token * off_policy_keep(logps, drifted_from, mask, advantages, objective.off_policy_threshold)
    if keep is not None:
        per_token = per_token * keep
    if mismatch is not None and objective.loss != "vespo":
        per_token = per_token * mismatch

    average = _Average(mask, denominators)
    metrics = {} if objective.loss == "vespo" else _clip_metrics(objective, ratio.detach(), advantage, average)
    if objective.loss == "vespo":
        metrics["vespo/phi_seq_mean"] = average(phi)
    metrics["advantage_logp"] = average(advantage * logps.detach())
    if mismatch is not None:
        metrics |= average.spread("sampling/importance_sampling_ratio", mismatch)
    if sampling is not None:
        metrics |= average.spread("sampling/sampling_logp_difference", (old - sampling).abs().nan_to_num(nan=0.0))
    if entropy is not None:
        metrics["entropy"] = average(entropy.detach())
    if ref is not None:
        away = (ref - logps).clamp(-limit, limit)
        kl = torch.exp(away) - away - 1
        if objective.bias_corrected_kl:
            kl = kl * ratio
        per_token = per_token + objective.beta * kl
        metrics["kl"] = average(kl.detach())
    return (_token_weights(objective, mask, denominators) * per_token).sum(), metrics


def add_metrics(parts: Iterable[Metrics]) -> Metrics:
    """Join the metrics of a step's micro-batches: shares of a mean add up, extremes are taken over all rows."""
    total: Metrics = {}
    for metrics in parts:
        for name, value in metrics.items():
            if name not in total:
                total[name] = value
            elif name.endswith(("_min", "/min")):
                total[name] = torch.minimum(total[name], value)
            elif name.endswith(("_max", "/max")):
                total[name] = torch.maximum(total[name], value)
            else:
                total[name] = total[name] + value
    return total


def _surrogate(objective: Objective, ratio: Tensor, advantage: Tensor, logps: Tensor) -> Tensor:
    """The policy term per token, `[N, C]` or, for sequence ratios, `[N, 1]`."""
    if objective.loss == "cispo":
        return -ratio.detach().clamp(max=objective.epsilon_high) * advantage * logps
    if objective.loss == "sapo":  # a soft gate around ratio 1, steeper for negative advantages
        slope = torch.where(advantage > 0, 1.0, 1.05)
        return -torch.sigmoid(slope * (ratio - 1)) * 4 / slope * advantage
    clipped = ratio.clamp(1 - objective.epsilon_low, 1 + objective.epsilon_high)
    return -torch.minimum(_capped(ratio, objective.delta) * advantage, clipped * advantage)


def _capped(ratio: Tensor, delta: float | None) -> Tensor:
    return ratio if delta is None else ratio.clamp(max=delta)


def _token_weights(objective: Objective, mask: Tensor, denominators: Denominators) -> Tensor:
    if objective.loss in ("grpo", "sapo"):
        return mask / (mask.sum(1, keepdim=True).clamp(min=1) * denominators.rows)
    if objective.loss == "luspo":
        return mask / denominators.rows
    if objective.max_completion_length is not None and objective.loss == "dr_grpo":
        return mask / (denominators.rows * objective.max_completion_length)
    return mask / denominators.tokens


class _Average:
    """This micro-batch's share of a mean over the tokens `[N, C]`, or over the sequences `[N, 1]`, of the step."""

    def __init__(self, mask: Tensor, denominators: Denominators) -> None:
        self.mask, self.denominators = mask, denominators

    def __call__(self, values: Tensor) -> Tensor:
        if values.shape[1] == 1 != self.mask.shape[1]:
            return values.sum() / self.denominators.rows
        return (values * self.mask).sum() / self.denominators.tokens

    def spread(self, name: str, values: Tensor) -> Metrics:
        """Mean, and the extremes over the real tokens (or sequences)."""
        real = values if values.shape[1] == 1 != self.mask.shape[1] else values[self.mask.bool()]
        found = {f"{name}/mean": self(values)}
        return found | ({f"{name}/min": real.min(), f"{name}/max": real.max()} if real.numel() else {})

    def per_sequence(self, values: Tensor) -> Tensor:
        if values.shape[1] == 1 != self.mask.shape[1]:
            return values.squeeze(1)
        length = self.mask.sum(1)
        return ((values * self.mask).sum(1) / length.clamp(min=1))[length > 0]


def _clip_metrics(objective: Objective, ratio: Tensor, advantage: Tensor, average: _Average) -> Metrics:
    if objective.loss == "sapo":
        return {}
    if objective.loss == "cispo":
        return {"cispo_clip_ratio": average(((ratio > objective.epsilon_high) & (advantage > 0)).to(ratio.dtype))}
    ratio = _capped(ratio, objective.delta)
    low = ((ratio < 1 - objective.epsilon_low) & (advantage < 0)).to(ratio.dtype)
    high = ((ratio > 1 + objective.epsilon_high) & (advantage > 0)).to(ratio.dtype)
    metrics = {
        "clip_ratio/low_mean": average(low),
        "clip_ratio/high_mean": average(high),
        "clip_ratio/region_mean": average(low + high),
    }
    low_rows, high_rows = average.per_sequence(low), average.per_sequence(high)
    if low_rows.numel():
        metrics |= {"clip_ratio/low_min": low_rows.min(), "clip_ratio/high_max": high_rows.max()}
    return metrics


def _check(objective: Objective, mask: Tensor, tensors: dict[str, Tensor | None]) -> None:
    for name, tensor in tensors.items():
        if tensor is not None and tensor.shape != mask.shape:
            raise ValueError(f"{name} must have the mask's shape {tuple(mask.shape)}; got {tuple(tensor.shape)}")
    if objective.beta > 0 and tensors["ref"] is None:
        raise ValueError(f"beta={objective.beta} needs the reference's log-probs; pass ref, or set beta=0")
