"""Attention in which the G completions of a prompt share its keys and values (cascade attention).

Both functions are handed to transformers as attention implementations, so that any decoder which takes its attention
from `ALL_ATTENTION_FUNCTIONS` and passes keyword arguments down to it runs unchanged: its own projections, rotary
embeddings and norms, our visibility. The prompt's keys are read once for all G * H / KV queries that look at them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

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
    length = (total - size) // group
    own_query = query[:, :, size:].view(batch, kv_heads, -1, group, length, dim).transpose(2, 3)
    mixed = _two_part_attention(
        own_query.reshape(batch, kv_heads, group, -1, dim) * scaling,
        (key[:, :, :size], value[:, :, :size], layout.prompt_bias),
        (_by_completion(key[:, :, size:], group), _by_completion(value[:, :, size:], group)),
        layout.own_bias.repeat(heads // kv_heads, 1),
    )
    mixed = mixed.view(batch, kv_heads, group, -1, length, dim).permute(0, 2, 4, 1, 3, 5)
    return torch.cat([prompt.transpose(1, 2), mixed.reshape(batch, total - size, heads, dim)], dim=1), None


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
    """Attention of one new token per row: query `[B*G, H, 1, D]`, own key, value `[B, KV, G, t, D]` (`OwnTokens`).

    prefix: per layer the prompt's keys and values `[B, KV, P, D]`; bias: `prompt_bias`, `[B, 1, 1, P]`.
    """
    _reject(kwargs, dropout)
    batch, kv_heads, group, _, dim = key.shape
    own_query = query.view(batch, group, kv_heads, -1, dim).transpose(1, 2) * scaling
    mixed = _two_part_attention(own_query, (*prefix[module.layer_idx], bias), (key, value), None)  # type: ignore[index]
    return mixed.transpose(1, 2).reshape(batch * group, 1, -1, dim), None


def _by_completion(states: Tensor, group: int) -> Tensor:
    """`[B, KV, G*C, D]` as `[B, KV, G, C, D]`."""
    return states.unflatten(2, (group, -1))


def _two_part_attention(
    query: Tensor, prompt: tuple[Tensor, Tensor, Tensor], own: tuple[Tensor, Tensor], own_bias: Tensor | None
) -> Tensor:
    """One softmax over the prompt's keys `[B, KV, P, D]` and a completion's own `[B, KV, G, C, D]`.

    query `[B, KV, G, Q, D]`, already scaled; Q runs over the query heads that share a key head and the positions.
    Returns the query's shape.
    """
    prompt_key, prompt_value, bias = prompt
    to_prompt = query.flatten(2, 3) @ prompt_key.transpose(-1, -2) + bias
    to_own = query @ own[0].transpose(-1, -2)
    if own_bias is not None:
        to_own = to_own + own_bias
    size = prompt_key.shape[2]
    scores = torch.cat([to_prompt.unflatten(2, query.shape[2:4]), to_own], dim=-1)
    weights = scores.softmax(-1, dtype=torch.float32).to(query.dtype)
    from_prompt = weights[..., :size].flatten(2, 3) @ prompt_value
    return from_prompt.view(query.shape) + weights[..., size:] @ own[1]


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
    """Run `decoder` with another attention implementation for a while.

    A layer under gradient checkpointing runs again in the backward pass, when the while is over: it takes the
    implementation along.
    """
    config = decoder.config.get_text_config(decoder=True)
    before = config._attn_implementation
    layers = [m for m in decoder.modules() if getattr(m, "gradient_checkpointing", False)]
    checkpoints = [layer._gradient_checkpointing_func for layer in layers]

    def checkpoint_within(checkpoint: Callable[..., Tensor], run: Callable[..., Tensor], *args: Tensor) -> Tensor:
        def run_within(*args: Tensor) -> Tensor:
            with attention(decoder, implementation):
                return run(*args)

        return checkpoint(run_within, *args)

    config._attn_implementation = implementation
    for layer, checkpoint in zip(layers, checkpoints, strict=True):
        layer._gradient_checkpointing_func = partial(checkpoint_within, checkpoint)
    try:
        yield
    finally:
        config._attn_implementation = before
        for layer, checkpoint in zip(layers, checkpoints, strict=True):
            layer._gradient_checkpointing_func = checkpoint


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
