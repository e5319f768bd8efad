"""How the next token is chosen: a distribution over the vocabulary, and a draw from it that a seed fixes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Sampling:
    """Temperature and truncations, applied in transformers' order: temperature, top_k, top_p, min_p.

    temperature 0 is greedy. top_k 0, top_p 1 and min_p 0 leave the distribution as it is. GRPO samples from the policy
    itself, Sampling(): with any other setting the rollout's log-probs are not those of the policy.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0

    def __post_init__(self) -> None:
        if not self.temperature >= 0:
            raise ValueError(f"temperature must be at least 0 (0 is greedy); got {self.temperature}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must lie in (0, 1]; got {self.top_p}; set 1 to keep all tokens")
        if self.top_k < 0:
            raise ValueError(f"top_k must be at least 0; got {self.top_k}; set 0 to keep all tokens")
        if not 0 <= self.min_p < 1:
            raise ValueError(f"min_p must lie in [0, 1); got {self.min_p}; set 0 to keep all tokens")

    def logits(self, logits: Tensor) -> Tensor:
        """Logits `[R, V]` of the distribution that is sampled from; -inf for a token that is cut off."""
        if self.temperature not in (0, 1):
            logits = logits / self.temperature
        if 0 < self.top_k < logits.shape[-1]:
            kth = logits.topk(self.top_k, dim=-1).values[..., -1:]
            logits = logits.masked_fill(logits < kth, -torch.inf)
        if self.top_p < 1:
            ordered, order = logits.sort(descending=True, dim=-1)
            p = ordered.softmax(-1)
            outside = p.cumsum(-1) - p >= self.top_p  # the likelier tokens alone reach top_p; the likeliest stays
            logits = logits.masked_fill(torch.zeros_like(outside).scatter(-1, order, outside), -torch.inf)
        if self.min_p > 0:
            p = logits.softmax(-1)
            logits = logits.masked_fill(p < self.min_p * p.amax(-1, keepdim=True), -torch.inf)
        return logits


def uniforms(seeds: Sequence[int], group_size: int, steps: int) -> Tensor:
    """Uniform numbers `[B, steps, G]` in [0, 1), fp32 on the CPU, those of a prompt depending on its seed only."""
    draws = [torch.rand(steps, group_size, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    return torch.stack(draws)


def draw(logits: Tensor, uniform: Tensor | None) -> tuple[Tensor, Tensor]:
    """Tokens `[R]` and their log-probs `[R]` from fp32 logits `[R, V]`: inverse CDF at `uniform` `[R]`, None = greedy."""
    peak = logits.amax(-1, keepdim=True)
    mass = (logits - peak).exp_()
    if uniform is None:
        tokens = logits.argmax(-1)
        total = mass.sum(-1)
    else:
        cdf = mass.cumsum(-1)
        total = cdf[:, -1]
        # below the total, so that the token found is one at which the CDF rises
        at = torch.minimum(uniform * total, torch.nextafter(total, torch.zeros_like(total)))
        tokens = torch.searchsorted(cdf, at[:, None], right=True).squeeze(1)
        tokens.clamp_(max=logits.shape[-1] - 1)  # only with NaN logits, whose log-prob is NaN, too
    chosen = logits.gather(1, tokens[:, None]).squeeze(1)
    return tokens, chosen - peak.squeeze(1) - total.log()
