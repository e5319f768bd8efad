"""The clipped policy loss of GRPO with its KL term, and TRL's variants of it: log-probs in, loss and metrics out.

| loss | per-token term and aggregation | source |
|---|---|---|
| grpo | clipped ratio; mean over a sequence, then over sequences | DeepSeekMath, arXiv 2402.03300, eq. 3; the ERV paper |
| dapo, bnpo | clipped ratio; mean over the tokens of the step (TRL's bnpo: of its micro-batch) | DAPO, arXiv 2503.14476, eq. 8 |
| dr_grpo | clipped ratio; sum over a sequence / constant length, so no bias by length | Dr. GRPO, arXiv 2503.20783 |
| cispo | capped ratio without gradient * log-prob: no token's gradient is clipped away | MiniMax-M1, arXiv 2506.13585 |
| sapo | soft sigmoid gate instead of clipping | arXiv 2511.20347 |
| luspo | sum over a sequence, mean over sequences; with level "sequence" | arXiv 2602.05261 |
| vespo | soft weight of the sequence ratio * log-prob | arXiv 2602.10693 |

`level="sequence"` makes it GSPO (arXiv 2507.18071), `delta` adds two-sided clipping (INTELLECT-2, arXiv 2505.07291).

Shapes: N completions of at most C tokens.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from erv.grpo.importance_sampling import off_policy_mask, vespo_weight

LossType = Literal["grpo", "bnpo", "dr_grpo", "dapo", "cispo", "sapo", "luspo", "vespo"]
Metrics = dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class GRPOLoss:
    """Settings of `policy_loss`, as `algo.objective` of a config holds them.

    The defaults are the released ERV loop (one update per rollout, so that the ratio is 1) with TRL's clip range.
    """

    loss: LossType = "grpo"
    """Per-token term and aggregation, see the table above. TRL: loss_type."""
    level: Literal["token", "sequence"] = "token"
    """"sequence" replaces the ratio of each token by the geometric mean over its sequence. TRL: importance_sampling_level."""
    beta: float = 0.04
    """Weight of the k3 estimate of KL(policy || reference); 0 needs no reference."""
    epsilon_low: float = 0.2
    """The ratio is clipped at 1 - epsilon_low."""
    epsilon_high: float = 0.2
    """The ratio is clipped at 1 + epsilon_high; for "cispo" the absolute cap of the ratio."""
    delta: float | None = None
    """Upper bound of the unclipped ratio, which bounds the loss where A < 0; None for none."""
    bias_corrected_kl: bool = False
    """Multiply the KL term by the ratio, which makes it unbiased for samples of the old policy (DeepSeek-V3.2)."""
    off_policy_threshold: float | None = None
    """Drop sequences with A < 0 whose mean log-ratio to the sampler exceeds this (nats per token); None drops none."""
    max_completion_length: int | None = None
    """Tokens: the constant divisor of "dr_grpo"."""
    log_ratio_limit: float = 20.0
    """Log-ratios to the old policy and the reference are clamped to +- this before exp; beyond it no gradient flows. exp
    overflows in fp32 from 88 on, and one such token would make the whole step infinite."""

    def __post_init__(self) -> None:
        if self.loss not in get_args(LossType):
            raise ValueError(f"loss must be one of {', '.join(get_args(LossType))}; got {self.loss!r}")
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
    """What the sums of a step are divided by; counted once over the whole optimiser step, before micro-batches are cut.

    So the losses of the micro-batches add up to the loss of the step, however it is cut. Where gradients are averaged over
    processes, divide the counts of all processes by the number of processes.
    """

    rows: float
    """Completions."""
    tokens: float
    """Real tokens, at least 1."""

    @classmethod
    def of(cls, mask: Tensor) -> Denominators:
        """Count the completions and real tokens of `mask` `[N, C]`."""
        return cls(float(mask.shape[0]), float(mask.sum().clamp(min=1)))


def policy_loss(
    settings: GRPOLoss,
    denominators: Denominators,
    logps: Tensor,
    mask: Tensor,
    advantages: Tensor,
    *,
    old_logps: Tensor | None = None,
    ref_logps: Tensor | None = None,
    importance_ratio: Tensor | None = None,
    sampling_logps: Tensor | None = None,
    token_filter: Tensor | None = None,
    entropy: Tensor | None = None,
) -> tuple[Tensor, Metrics]:
    """The loss of a micro-batch; losses and metrics of a step's micro-batches add up to those of the step (`add_metrics`).

        r    = exp(logps - old_logps)
        k3   = exp(ref_logps - logps) - (ref_logps - logps) - 1        (Schulman's unbiased, non-negative KL estimate)
        l    = -min(r A, clip(r, 1 - epsilon_low, 1 + epsilon_high) A)                  (other forms: `_policy_term`)
        loss = sum_it w_it (token_filter_it importance_ratio_it l_it + beta k3_it)

    w_it is 1 / (rows * length_i) for grpo and sapo, 1 / tokens for bnpo, dapo, cispo and vespo,
    1 / (rows * max_completion_length) for dr_grpo, 1 / rows for luspo.

    Args:
        settings: the form of the loss.
        denominators: completions and tokens of the whole step.
        logps: the policy's log-probs `[N, C]`, with gradient.
        mask: `[N, C]`, 1 for tokens that are trained on.
        advantages: `[N]`.
        old_logps: `[N, C]` before the first update on this rollout. None for one update per rollout: the ratio is 1, and its
            gradient that of the log-probs.
        ref_logps: the reference's `[N, C]`. Required when beta > 0; with beta = 0 the KL is only measured.
        importance_ratio: of the trainer to the sampler, `[N, C]` or `[N, 1]`, see `erv.grpo.importance_sampling`. It
            multiplies the policy term, not the KL term.
        sampling_logps: the sampler's `[N, C]`, for the off-policy mask (default: old_logps) and a metric.
        token_filter: `[N, C]`, the policy term of other tokens is dropped; see `high_entropy_mask`.
        entropy: `[N, C]`, only measured.

    Returns:
        The loss, and metrics under TRL's names: parts of means over the step, and extremes.
    """
    by_token = {
        "logps": logps,
        "old_logps": old_logps,
        "ref_logps": ref_logps,
        "sampling_logps": sampling_logps,
        "entropy": entropy,
    }
    _check_arguments(settings, mask, by_token)
    mask = mask.to(logps.dtype)
    advantage = advantages.unsqueeze(1)
    old_logps = logps.detach() if old_logps is None else old_logps
    log_ratio = logps - old_logps
    if settings.level == "sequence":
        log_ratio = (log_ratio * mask).sum(1, keepdim=True) / mask.sum(1, keepdim=True).clamp(min=1)
    limit = settings.log_ratio_limit
    ratio = log_ratio.clamp(-limit, limit).exp()
    if settings.loss == "vespo":
        phi = vespo_weight(log_ratio, mask, advantages, importance_ratio)
        per_token = -phi * advantage * logps
    else:
        per_token = _policy_term(settings, ratio, advantage, logps)
    if settings.off_policy_threshold is not None:
        sampler = old_logps if sampling_logps is None else sampling_logps
        per_token = per_token * off_policy_mask(logps, sampler, mask, advantages, settings.off_policy_threshold)
    if token_filter is not None:
        per_token = per_token * token_filter
    if importance_ratio is not None and settings.loss != "vespo":  # whose weight has it already
        per_token = per_token * importance_ratio

    mean = _StepMean(mask, denominators)
    metrics = {} if settings.loss == "vespo" else _clip_metrics(settings, ratio.detach(), advantage, mean)
    if settings.loss == "vespo":
        metrics["vespo/phi_seq_mean"] = mean(phi)
    # the value of an on-policy loss is 0 by construction (A sums to 0, r is 1); this one shows what is being reinforced
    metrics["advantage_logp"] = mean(advantage * logps.detach())
    if importance_ratio is not None:
        metrics |= mean.with_extremes("sampling/importance_sampling_ratio", importance_ratio)
    if sampling_logps is not None:
        difference = (old_logps - sampling_logps).abs().nan_to_num(nan=0.0)
        metrics |= mean.with_extremes("sampling/sampling_logp_difference", difference)
    if entropy is not None:
        metrics["entropy"] = mean(entropy.detach())
    if ref_logps is not None:
        ref_log_ratio = (ref_logps - logps).clamp(-limit, limit)
        kl = torch.exp(ref_log_ratio) - ref_log_ratio - 1
        if settings.bias_corrected_kl:
            kl = kl * ratio
        per_token = per_token + settings.beta * kl
        metrics["kl"] = mean(kl.detach())
    return (_token_weights(settings, mask, denominators) * per_token).sum(), metrics


def add_metrics(parts: Iterable[Metrics]) -> Metrics:
    """Join the metrics of micro-batches or processes: parts of a mean add up, extremes are taken over all of them."""
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


def _policy_term(settings: GRPOLoss, ratio: Tensor, advantage: Tensor, logps: Tensor) -> Tensor:
    """The policy term per token, `[N, C]`, or per sequence for sequence ratios, `[N, 1]`."""
    if settings.loss == "cispo":
        return -ratio.detach().clamp(max=settings.epsilon_high) * advantage * logps
    if settings.loss == "sapo":  # sigmoid(t (r - 1)) 4 / t has gradient 1 at r = 1; t is larger for negative advantages
        temperature = torch.where(advantage > 0, 1.0, 1.05)
        return -torch.sigmoid(temperature * (ratio - 1)) * 4 / temperature * advantage
    clipped = ratio.clamp(1 - settings.epsilon_low, 1 + settings.epsilon_high)
    return -torch.minimum(_cap(ratio, settings.delta) * advantage, clipped * advantage)


def _cap(ratio: Tensor, delta: float | None) -> Tensor:
    return ratio if delta is None else ratio.clamp(max=delta)


def _token_weights(settings: GRPOLoss, mask: Tensor, denominators: Denominators) -> Tensor:
    """The weights w_it `[N, C]` of `policy_loss`."""
    if settings.loss in ("grpo", "sapo"):
        return mask / (mask.sum(1, keepdim=True).clamp(min=1) * denominators.rows)
    if settings.loss == "luspo":
        return mask / denominators.rows
    if settings.max_completion_length is not None and settings.loss == "dr_grpo":
        return mask / (denominators.rows * settings.max_completion_length)
    return mask / denominators.tokens


class _StepMean:
    """This micro-batch's part of a mean over the step: over tokens for values `[N, C]`, over sequences for `[N, 1]`."""

    def __init__(self, mask: Tensor, denominators: Denominators) -> None:
        self.mask, self.denominators = mask, denominators

    def __call__(self, values: Tensor) -> Tensor:
        if self._per_sequence(values):
            return values.sum() / self.denominators.rows
        return (values * self.mask).sum() / self.denominators.tokens

    def with_extremes(self, name: str, values: Tensor) -> Metrics:
        """The mean, and the extremes over the real tokens (or sequences) of the micro-batch."""
        real = values if self._per_sequence(values) else values[self.mask.bool()]
        mean = {f"{name}/mean": self(values)}
        return mean | ({f"{name}/min": real.min(), f"{name}/max": real.max()} if real.numel() else {})

    def by_sequence(self, values: Tensor) -> Tensor:
        """The mean of each sequence that has real tokens."""
        if self._per_sequence(values):
            return values.squeeze(1)
        length = self.mask.sum(1)
        return ((values * self.mask).sum(1) / length.clamp(min=1))[length > 0]

    def _per_sequence(self, values: Tensor) -> bool:
        return values.shape[1] == 1 != self.mask.shape[1]


def _clip_metrics(settings: GRPOLoss, ratio: Tensor, advantage: Tensor, mean: _StepMean) -> Metrics:
    """Fractions of tokens (or sequences) whose gradient is clipped away, under TRL's names."""
    if settings.loss == "sapo":
        return {}
    if settings.loss == "cispo":
        return {"cispo_clip_ratio": mean(((ratio > settings.epsilon_high) & (advantage > 0)).to(ratio.dtype))}
    ratio = _cap(ratio, settings.delta)
    # the minimum in the loss picks the clipped term only where it lowers the objective
    low = ((ratio < 1 - settings.epsilon_low) & (advantage < 0)).to(ratio.dtype)
    high = ((ratio > 1 + settings.epsilon_high) & (advantage > 0)).to(ratio.dtype)
    metrics = {
        "clip_ratio/low_mean": mean(low),
        "clip_ratio/high_mean": mean(high),
        "clip_ratio/region_mean": mean(low + high),
    }
    low_by_sequence, high_by_sequence = mean.by_sequence(low), mean.by_sequence(high)
    if low_by_sequence.numel():
        metrics |= {"clip_ratio/low_min": low_by_sequence.min(), "clip_ratio/high_max": high_by_sequence.max()}
    return metrics


def _check_arguments(settings: GRPOLoss, mask: Tensor, by_token: dict[str, Tensor | None]) -> None:
    for name, tensor in by_token.items():
        if tensor is not None and tensor.shape != mask.shape:
            raise ValueError(f"{name} must have the mask's shape {tuple(mask.shape)}; got {tuple(tensor.shape)}")
    if settings.beta > 0 and by_token["ref_logps"] is None:
        raise ValueError(f"beta={settings.beta} needs the reference's log-probs; pass ref_logps, or set beta=0")
