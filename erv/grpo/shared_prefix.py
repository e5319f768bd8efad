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
from torch.autograd.function import FunctionCtx
from transformers import PreTrainedModel
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from erv.grpo.attend import attend, attend_backward, join

STREAM, DECODE = "erv_stream", "erv_decode"


@dataclass(frozen=True, slots=True)
class StreamLayout:
    """How a row [prompt | c_1 | ... | c_G] is cut: G completions of C tokens follow `size` prompt positions.

    prompt_bias: `[B, 1, 1, P]`, -inf at padding, None without. causal_bias: `[B, 1, P, P]`, causal and without padding,
    None where causal alone will do: padding on the right is seen by no real position.
    """

    group_size: int
    size: int
    prompt_bias: Tensor | None
    causal_bias: Tensor | None

    @classmethod
    def of(cls, prompt_mask: Tensor, group_size: int, dtype: torch.dtype) -> StreamLayout:
        """Layout for prompts with `prompt_mask` `[B, P]`; `dtype` is that of the attention's inputs."""
        real, size = prompt_mask.bool(), prompt_mask.shape[1]
        if bool(real.all()):
            return cls(group_size, size, None, None)
        bias = prompt_bias(real, dtype)
        if bool(real[:, 0].all()) and bool((real.long().diff(dim=1) <= 0).all()):
            return cls(group_size, size, bias, None)
        ones = torch.ones(size, size, dtype=torch.bool, device=real.device)
        # a padded position sees itself: a row without any key would turn into NaN
        visible = (ones.tril() & real[:, None, :]) | torch.eye(size, dtype=torch.bool, device=real.device)
        causal = torch.zeros(visible.shape, dtype=dtype, device=real.device).masked_fill_(~visible, -torch.inf)
        return cls(group_size, size, bias, causal[:, None])


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

    A completion's query sees the whole prompt and its own completion up to itself. Returns `[B, P + G*C, H, D]`.
    """
    _reject(kwargs, dropout)
    dtype = value.dtype  # under autocast rotary embeddings leave query and key in fp32
    return _Stream.apply(query.to(dtype), key.to(dtype), value, layout, scaling), None


class _Stream(torch.autograd.Function):
    """Three attentions: prompt over itself, completions over the prompt, completions over themselves."""

    @staticmethod
    def forward(
        ctx: FunctionCtx, query: Tensor, key: Tensor, value: Tensor, layout: StreamLayout, scale: float
    ) -> Tensor:
        size, group = layout.size, layout.group_size
        batch, heads, total, dim = query.shape
        output = query.new_empty(batch, total, heads, dim).transpose(1, 2)
        lse = query.new_empty(batch, heads, total, dtype=torch.float32)
        prompt = (key[:, :, :size], value[:, :, :size])
        causal = layout.causal_bias is None
        output[:, :, :size], lse[:, :, :size] = attend(query[:, :, :size], *prompt, scale, causal, layout.causal_bias)
        if total > size:
            own = [_by_completion(states[:, :, size:], group) for states in (query, key, value)]
            to_own, own_lse = attend(*own, scale, causal=True)
            to_prompt = attend(query[:, :, size:], *prompt, scale, bias=layout.prompt_bias)
            joint = join(*to_prompt, _in_stream(to_own, group), _in_stream(own_lse, group))
            output[:, :, size:], lse[:, :, size:] = joint
        ctx.save_for_backward(query, key, value, output, lse)
        ctx.layout, ctx.scale = layout, scale  # type: ignore[attr-defined]
        return output.transpose(1, 2)

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, output, lse = ctx.saved_tensors  # type: ignore[attr-defined]
        layout, scale = ctx.layout, ctx.scale  # type: ignore[attr-defined]
        size, group = layout.size, layout.group_size
        gradient = gradient.transpose(1, 2)
        prompt = (key[:, :, :size], value[:, :, :size])

        def of(part: slice) -> tuple[Tensor, Tensor]:
            return output[:, :, part], lse[:, :, part]

        head, tail = slice(None, size), slice(size, None)
        found = [torch.empty_like(states) for states in (query, key, value)]
        parts = attend_backward(
            gradient[:, :, head], query[:, :, head], *prompt, *of(head), scale, layout.causal_bias is None,
            layout.causal_bias,
        )  # fmt: skip
        for whole, part in zip(found, parts, strict=True):
            whole[:, :, head] = part
        if query.shape[2] > size:
            own = [_by_completion(states[:, :, tail], group) for states in (gradient, query, key, value, output, lse)]
            from_own = [_in_stream(g, group) for g in attend_backward(*own, scale, causal=True)]
            from_prompt = attend_backward(
                gradient[:, :, tail], query[:, :, tail], *prompt, *of(tail), scale, bias=layout.prompt_bias
            )
            torch.add(from_own[0], from_prompt[0], out=found[0][:, :, tail])
            for whole, mine, prompts in zip(found[1:], from_own[1:], from_prompt[1:], strict=True):
                whole[:, :, tail] = mine
                whole[:, :, head] += prompts
        return *found, None, None


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
    """`[B, H, G*C, ...]` as `[B*G, H, C, ...]`."""
    return states.unflatten(2, (group, -1)).transpose(1, 2).flatten(0, 1)


def _in_stream(states: Tensor, group: int) -> Tensor:
    """The inverse of `_by_completion`."""
    return states.unflatten(0, (-1, group)).transpose(1, 2).flatten(2, 3)


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
