"""Sampling the next token: temperature and truncations of the distribution, and a draw that a seed reproduces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Sampling:
    """Temperature and truncations, applied in transformers' order: temperature, top_k, top_p, min_p.

    GRPO samples from the policy itself, `Sampling()`: with any other truncation the log-probs of the rollout are not those
    of the policy, and the importance ratio of the update is wrong.
    """

    temperature: float = 1.0
    """Divides the logits; 0 is greedy decoding."""
    top_p: float = 1.0
    """Keep the likeliest tokens whose probabilities reach this sum (nucleus sampling); 1 keeps all."""
    top_k: int = 0
    """Keep this many of the likeliest tokens; 0 keeps all."""
    min_p: float = 0.0
    """Keep the tokens with at least this fraction of the likeliest token's probability; 0 keeps all."""

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
        """Turn the model's logits `[R, V]` into those of the distribution to sample from, -inf for excluded tokens."""
        if self.temperature not in (0, 1):
            logits = logits / self.temperature
        if 0 < self.top_k < logits.shape[-1]:
            kth = logits.topk(self.top_k, dim=-1).values[..., -1:]
            logits = logits.masked_fill(logits < kth, -torch.inf)
        if self.top_p < 1:
            ordered, order = logits.sort(descending=True, dim=-1)
            p = ordered.softmax(-1)
            # a token is excluded when the likelier ones alone reach top_p, so the likeliest is never excluded
            excluded = p.cumsum(-1) - p >= self.top_p
            logits = logits.masked_fill(torch.zeros_like(excluded).scatter(-1, order, excluded), -torch.inf)
        if self.min_p > 0:
            p = logits.softmax(-1)
            logits = logits.masked_fill(p < self.min_p * p.amax(-1, keepdim=True), -torch.inf)
        return logits


def uniforms(seeds: Sequence[int], group_size: int, steps: int) -> Tensor:
    """Draw the random numbers of a rollout: `[B, steps, G]`, uniform in [0, 1), fp32.

    One CPU generator per prompt, so that a completion depends on its prompt's seed alone: not on the other prompts of the
    batch, on the number of processes, or on the device. Steps come first, so that a longer limit keeps the first numbers.
    """
    draws = [torch.rand(steps, group_size, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    return torch.stack(draws)


def draw(logits: Tensor, uniform: Tensor | None) -> tuple[Tensor, Tensor]:
    """Choose a token per row by inverse transform sampling, or the likeliest one (`uniform` None).

    Args:
        logits: `[R, V]` in fp32, as `Sampling.logits` gives them.
        uniform: `[R]` in [0, 1), or None for greedy decoding.

    Returns:
        The tokens `[R]` and their log-probs `[R]` under softmax(logits).
    """
    peak = logits.amax(-1, keepdim=True)
    weights = (logits - peak).exp_()  # not normalised: a softmax would be one more pass over the vocabulary
    if uniform is None:
        tokens = logits.argmax(-1)
        total = weights.sum(-1)
    else:
        cdf = weights.cumsum(-1)
        total = cdf[:, -1]
        # uniform * total can round up to total, at which no token lies: stay below it
        threshold = torch.minimum(uniform * total, torch.nextafter(total, torch.zeros_like(total)))
        # right=True: the first token whose CDF exceeds the threshold, so never one of probability 0
        tokens = torch.searchsorted(cdf, threshold[:, None], right=True).squeeze(1)
        tokens.clamp_(max=logits.shape[-1] - 1)  # out of range only with NaN logits; their log-prob is NaN too
    token_logits = logits.gather(1, tokens[:, None]).squeeze(1)
    return tokens, token_logits - peak.squeeze(1) - total.log()
