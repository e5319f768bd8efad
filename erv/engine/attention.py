"""Attention whose softmax can be joined with that of other keys: outputs with their log-sum-exp, and gradients from both.

softmax over two sets of keys is a mean of the two outputs weighted by exp(log-sum-exp), and the gradient of either set's
part needs only the joint output and the joint log-sum-exp (as in FlashAttention's backward pass). So a prompt's keys and
a completion's own never have to lie in one tensor.

Two kernels: torch's fused one for the CPU, which never stores the scores, and plain matrix products elsewhere.
"""

from __future__ import annotations

import torch
from torch import Tensor

_fused = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_fused_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


def attend(
    query: Tensor, key: Tensor, value: Tensor, scale: float, causal: bool = False, bias: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Output `[B, H, Q, D]` and log-sum-exp `[B, H, Q]` fp32 of query `[B, H, Q, D]` over key, value `[B, KV, K, D]`.

    bias `[B or 1, 1, Q or 1, K]` is added to the scaled scores, 0 or -inf; causal: query i sees keys up to i.
    """
    if _is_fused(query):
        output, lse = _fused(query, key, value, 0.0, causal, attn_mask=bias, scale=scale)
        return output, lse
    scores = _scores(query, key, scale, causal, bias)
    lse = scores.logsumexp(-1)
    weights = (scores - lse[..., None]).exp().to(value.dtype)
    return weights @ _per_head(value, query), lse


def attend_backward(
    gradient: Tensor, query: Tensor, key: Tensor, value: Tensor, output: Tensor, lse: Tensor, scale: float,
    causal: bool = False, bias: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of query, key and value from that of `output`; output and lse may be joint ones, over more keys."""
    if _is_fused(query):
        return _fused_backward(gradient, query, key, value, output, lse, 0.0, causal, attn_mask=bias, scale=scale)
    weights = (_scores(query, key, scale, causal, bias) - lse[..., None]).exp()
    on_weights = (gradient @ _per_head(value, query).transpose(-1, -2)).float()
    on_scores = weights * (on_weights - (gradient * output).float().sum(-1, keepdim=True)) * scale
    on_scores, weights = on_scores.to(query.dtype), weights.to(query.dtype)
    on_key, on_value = on_scores.transpose(-1, -2) @ query, weights.transpose(-1, -2) @ gradient
    shared = (key.shape[1], -1)  # the query heads of a key head
    return on_scores @ _per_head(key, query), on_key.unflatten(1, shared).sum(2), on_value.unflatten(1, shared).sum(2)


def join(first: Tensor, first_lse: Tensor, second: Tensor, second_lse: Tensor) -> tuple[Tensor, Tensor]:
    """One attention over two sets of keys from the outputs `[..., D]` and log-sum-exps `[...]` over each."""
    lse = torch.logaddexp(first_lse, second_lse)
    share = (second_lse - lse).exp().unsqueeze(-1).to(first.dtype)
    return torch.lerp(first, second, share), lse


def _is_fused(query: Tensor) -> bool:
    return query.device.type == "cpu"


def _scores(query: Tensor, key: Tensor, scale: float, causal: bool, bias: Tensor | None) -> Tensor:
    scores = (query @ _per_head(key, query).transpose(-1, -2)).float() * scale
    if causal:
        later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
        scores = scores.masked_fill(later, -torch.inf)
    return scores if bias is None else scores + bias


def _per_head(states: Tensor, query: Tensor) -> Tensor:
    """`[B, KV, K, D]` as `[B, H, K, D]`."""
    return states.repeat_interleave(query.shape[1] // states.shape[1], dim=1)
