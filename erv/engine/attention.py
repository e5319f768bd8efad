"""Attention that returns its log-sum-exp, so that attention over two sets of keys can be merged exactly.

Softmax attention over the keys A and B is a mean of the attention over A and the attention over B, weighted by
exp(log-sum-exp); cascade attention (FlashInfer) and FlashAttention's split over keys rest on the same identity. The
backward pass of either set needs only the merged output and the merged log-sum-exp (FlashAttention, arXiv 2205.14135,
algorithm 4). So the keys of a prompt and those of its completions never have to be copied into one tensor.

Two implementations: torch's fused CPU kernel, which never stores the score matrix, and plain matrix products elsewhere.

Shapes: B rows, H query heads, KV key heads (H is a multiple of KV: grouped-query attention), Q queries, K keys, d head size.
"""

from __future__ import annotations

import torch
from torch import Tensor

# scaled_dot_product_attention calls these, but does not return the log-sum-exp; they are the operators that do.
_fused = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_fused_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    scale: float,
    causal: bool = False,
    bias: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Compute softmax(scale * query key^T + bias) value, and the log-sum-exp of the scores.

    Args:
        query: `[B, H, Q, d]`.
        key, value: `[B, KV, K, d]`.
        scale: factor of the scores, 1 / sqrt(d).
        causal: query i sees the keys 0 to i only.
        bias: `[B or 1, 1, Q or 1, K]` with 0 for visible keys and -inf for masked ones, or None.

    Returns:
        The output `[B, H, Q, d]`, and the log-sum-exp over the keys `[B, H, Q]` in fp32.
    """
    if _uses_fused_kernel(query):
        output, lse = _fused(query, key, value, 0.0, causal, attn_mask=bias, scale=scale)
        return output, lse
    scores = _scores(query, key, scale, causal, bias)
    lse = scores.logsumexp(-1)
    weights = (scores - lse[..., None]).exp().to(value.dtype)
    return weights @ _repeat_kv(value, query), lse


def attend_backward(
    grad_output: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    output: Tensor,
    lse: Tensor,
    scale: float,
    causal: bool = False,
    bias: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the gradients of query, key and value of `attend` from `grad_output` `[B, H, Q, d]`.

    `output` `[B, H, Q, d]` and `lse` `[B, H, Q]` may be merged ones, over more keys than `key`: exp(score - lse) is then the
    weight that these keys have in the whole softmax, so the gradients are this set's terms of the whole gradient.

        P = exp(S - lse)    dV = P^T dO    dS = P * (dO V^T - rowsum(dO * O)) * scale    dQ = dS K    dK = dS^T Q
    """
    if _uses_fused_kernel(query):
        return _fused_backward(grad_output, query, key, value, output, lse, 0.0, causal, attn_mask=bias, scale=scale)
    weights = (_scores(query, key, scale, causal, bias) - lse[..., None]).exp()
    grad_weights = (grad_output @ _repeat_kv(value, query).transpose(-1, -2)).float()
    grad_scores = weights * (grad_weights - (grad_output * output).float().sum(-1, keepdim=True)) * scale
    grad_scores, weights = grad_scores.to(query.dtype), weights.to(query.dtype)
    grad_key, grad_value = grad_scores.transpose(-1, -2) @ query, weights.transpose(-1, -2) @ grad_output
    per_kv_head = (key.shape[1], -1)  # [B, H, K, d] -> [B, KV, H / KV, K, d]: query heads of a key head add up
    return (
        grad_scores @ _repeat_kv(key, query),
        grad_key.unflatten(1, per_kv_head).sum(2),
        grad_value.unflatten(1, per_kv_head).sum(2),
    )


def merge_attention(first: Tensor, first_lse: Tensor, second: Tensor, second_lse: Tensor) -> tuple[Tensor, Tensor]:
    """Merge the attention of the same queries over two sets of keys: outputs `[..., d]`, log-sum-exps `[...]`.

    lse = log(exp(lse_1) + exp(lse_2)), output = output_1 exp(lse_1 - lse) + output_2 exp(lse_2 - lse).
    """
    lse = torch.logaddexp(first_lse, second_lse)
    second_weight = (second_lse - lse).exp().unsqueeze(-1).to(first.dtype)
    return torch.lerp(first, second, second_weight), lse


def _uses_fused_kernel(query: Tensor) -> bool:
    return query.device.type == "cpu"


def _scores(query: Tensor, key: Tensor, scale: float, causal: bool, bias: Tensor | None) -> Tensor:
    """Masked scores `[B, H, Q, K]` in fp32, for a softmax in fp32; the product itself is rounded to the query's type."""
    scores = (query @ _repeat_kv(key, query).transpose(-1, -2)).float() * scale
    if causal:
        future = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
        scores = scores.masked_fill(future, -torch.inf)
    return scores if bias is None else scores + bias


def _repeat_kv(states: Tensor, query: Tensor) -> Tensor:
    """Repeat key or value heads `[B, KV, K, d]` to the query's `[B, H, K, d]`."""
    return states.repeat_interleave(query.shape[1] // states.shape[1], dim=1)
