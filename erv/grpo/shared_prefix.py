"""Attention in which the G completions of a prompt share its keys and values (cascade attention).

Both functions are handed to transformers as attention implementations, so that any decoder which takes its attention
from `ALL_ATTENTION_FUNCTIONS` and passes keyword arguments down to it runs unchanged: its own projections, rotary
embeddings and norms, our visibility. The prompt's keys are read once for all G * H / KV queries that look at them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import PreTrainedModel
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

STREAM, DECODE = "erv_stream", "erv_decode"


@dataclass(frozen=True, slots=True)
class StreamLayout:
    """How a row [prompt | c_1 | ... | c_G] is cut: G completions of C tokens follow P prompt positions.

    prompt_visible: `[B, 1, P, P]` bool, causal and without padding; prompt_bias: `[B, 1, 1, P]`, 0 or -inf (padding);
    own_bias: `[C, C]`, 0 or -inf (later tokens).
    """

    group_size: int
    prompt_visible: Tensor
    prompt_bias: Tensor
    own_bias: Tensor

    @classmethod
    def of(cls, prompt_mask: Tensor, group_size: int, length: int, dtype: torch.dtype) -> StreamLayout:
        """Layout for prompts with `prompt_mask` `[B, P]` and completions of `length` tokens."""
        size = prompt_mask.shape[1]
        ones = torch.ones(size, size, dtype=torch.bool, device=prompt_mask.device)
        # a padded position sees itself: a row without any key would turn into NaN
        visible = (ones.tril() & prompt_mask.bool()[:, None, :]) | torch.eye(size, dtype=torch.bool, device=ones.device)
        own = torch.zeros(length, length, dtype=dtype, device=prompt_mask.device)
        own.masked_fill_(torch.ones_like(own, dtype=torch.bool).triu(1), -torch.inf)
        return cls(group_size, visible[:, None], prompt_bias(prompt_mask, dtype), own)


def prompt_bias(prompt_mask: Tensor, dtype: torch.dtype) -> Tensor:
    """0 where `prompt_mask` `[B, P]` is set and -inf elsewhere, `[B, 1, 1, P]`."""
    bias = torch.zeros(prompt_mask.shape, dtype=dtype, device=prompt_mask.device)
    return bias.masked_fill_(~prompt_mask.bool(), -torch.inf)[:, None, None, :]


def stream_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    *,
    layout: StreamLayout,
    **kwargs: object,
) -> tuple[Tensor, None]:
    """Training attention over rows [prompt | c_1 | ... | c_G]: query `[B, H, P + G*C, D]`, key, value `[B, KV, ...]`.

    A completion's query sees the whole prompt and its own completion up to itself.
    """
    _reject(kwargs, dropout)
    size = layout.prompt_visible.shape[-1]
    prompt = scaled_dot_product_attention(
        query[:, :, :size],
        key[:, :, :size],
        value[:, :, :size],
        attn_mask=layout.prompt_visible,
        scale=scaling,
        enable_gqa=True,
    )
    batch, heads, total, dim = query.shape
    group, kv_heads = layout.group_size, key.shape[1]
    if total == size:
        return prompt.transpose(1, 2), None
    shape = (batch, kv_heads, heads // kv_heads, group, -1, dim)
    own_query = query[:, :, size:].reshape(shape) * scaling
    own_key = key[:, :, size:].reshape(batch, kv_heads, 1, group, -1, dim)
    own_value = value[:, :, size:].reshape(batch, kv_heads, 1, group, -1, dim)
    mixed = _two_part_attention(
        own_query,
        (key[:, :, :size], value[:, :, :size], layout.prompt_bias),
        (own_key, own_value, layout.own_bias),
    )
    completions = mixed.reshape(batch, heads, total - size, dim)
    return torch.cat([prompt, completions], dim=2).transpose(1, 2), None


def decode_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    *,
    prefix: list[tuple[Tensor, Tensor]],
    bias: Tensor,
    **kwargs: object,
) -> tuple[Tensor, None]:
    """Attention of one new token per row: query `[B*G, H, 1, D]`, own key, value `[B*G, KV, t, D]`.

    prefix: per layer the prompt's keys and values `[B, KV, P, D]`; bias: `prompt_bias`, `[B, 1, 1, P]`.
    """
    _reject(kwargs, dropout)
    prompt_key, prompt_value = prefix[module.layer_idx]  # type: ignore[index]
    batch, kv_heads = prompt_key.shape[:2]
    rows, heads, _, dim = query.shape
    group, repeat = rows // batch, heads // kv_heads
    own_query = query.view(batch, group, kv_heads, repeat, 1, dim).permute(0, 2, 3, 1, 4, 5) * scaling
    own_key = key.view(batch, group, kv_heads, 1, -1, dim).permute(0, 2, 3, 1, 4, 5)
    own_value = value.view(batch, group, kv_heads, 1, -1, dim).permute(0, 2, 3, 1, 4, 5)
    mixed = _two_part_attention(own_query, (prompt_key, prompt_value, bias), (own_key, own_value, None))
    return mixed.permute(0, 3, 4, 1, 2, 5).reshape(rows, 1, heads, dim), None


def _two_part_attention(
    query: Tensor, prompt: tuple[Tensor, Tensor, Tensor], own: tuple[Tensor, Tensor, Tensor | None]
) -> Tensor:
    """One softmax over the prompt's keys `[B, KV, P, D]` and a completion's own `[B, KV, 1, G, C, D]`.

    query `[B, KV, R, G, C, D]`, already scaled; R query heads share a key head. Returns the query's shape.
    """
    batch, kv_heads, _, _, _, dim = query.shape
    (prompt_key, prompt_value, bias), (own_key, own_value, own_bias) = prompt, own
    folded = query.reshape(batch, kv_heads, -1, dim)
    to_prompt = folded @ prompt_key.transpose(-1, -2) + bias
    to_own = query @ own_key.transpose(-1, -2)
    if own_bias is not None:
        to_own = to_own + own_bias
    size = prompt_key.shape[2]
    scores = torch.cat([to_prompt.view(*query.shape[:-1], size), to_own], dim=-1)
    weights = scores.softmax(-1, dtype=torch.float32).to(query.dtype)
    from_prompt = weights[..., :size].reshape(batch, kv_heads, -1, size) @ prompt_value
    return from_prompt.view(query.shape) + weights[..., size:] @ own_value


def _reject(kwargs: dict[str, object], dropout: float) -> None:
    if kwargs.get("sliding_window") is not None:
        raise ValueError(
            f"a shared prefix needs full attention; the decoder has sliding_window={kwargs['sliding_window']}; "
            "set use_sliding_window=False in its config"
        )
    if dropout > 0:
        raise ValueError(f"GRPO compares log-probs of two passes; set attention_dropout=0, got {dropout}")


ALL_ATTENTION_FUNCTIONS.register(STREAM, stream_attention)
ALL_ATTENTION_FUNCTIONS.register(DECODE, decode_attention)


@contextmanager
def attention(decoder: PreTrainedModel, implementation: str) -> Iterator[None]:
    """Run `decoder` with another attention implementation for a while."""
    config = decoder.config.get_text_config(decoder=True)
    before = config._attn_implementation
    config._attn_implementation = implementation
    try:
        yield
    finally:
        config._attn_implementation = before


def trunk_and_head(decoder: PreTrainedModel) -> tuple[nn.Module, Tensor]:
    """The decoder without its output layer, and that layer's weight `[V, D]`."""
    head = decoder.get_output_embeddings()
    if type(head) is not nn.Linear or head.bias is not None:
        raise ValueError(
            f"the output layer must be a Linear without bias, log-probs are formed from its weight; got {head}; "
            "leave lm_head out of the LoRA targets"
        )
    return decoder.get_decoder(), head.weight


def positions(mask: Tensor) -> Tensor:
    """Position ids `[B, P]` that count real tokens from 0, wherever the padding is."""
    return (mask.long().cumsum(1) - 1).clamp(min=0)
