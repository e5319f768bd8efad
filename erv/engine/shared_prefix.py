"""Hidden states of a prompt and its G completions with the prompt run once, for training.

A row is [prompt | completion_1 | ... | completion_G]. A completion's position attends to the whole prompt and to its own
completion up to itself, never to the other completions, and its position ids go on from the prompt's. So hidden states and
gradients equal those of G separate rows [prompt | completion], and the trunk runs P + G C tokens per prompt instead of
G (P + C).

Shapes: B prompts, P prompt positions (padded), G completions of C positions, H query heads, KV key heads, d head size, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx

from erv.engine.attention import attend, attend_backward, merge_attention
from erv.engine.layers import SelectPositions, last_position, padding_bias, position_ids, rotate, run_layers


@dataclass(frozen=True, slots=True)
class Layout:
    """How a row [prompt | completions] is divided, and which prompt positions are masked as padding."""

    group_size: int
    """Completions per prompt, G."""
    prompt_size: int
    """Prompt positions including padding, P."""
    padding: Tensor | None
    """Bias `[B, 1, 1, P]`, -inf at padding; None without padding."""
    causal: Tensor | None
    """Bias `[B, 1, P, P]` of the prompt over itself, -inf for later positions and padding. None where the kernel's own causal
    mask will do: padding on the right is seen by no real position."""

    @classmethod
    def of(cls, prompt_mask: Tensor, group_size: int, dtype: torch.dtype) -> Layout:
        """Build the layout for prompts with `prompt_mask` `[B, P]`; `dtype` is that of keys and values."""
        real, size = prompt_mask.bool(), prompt_mask.shape[1]
        padding = padding_bias(real, dtype)
        if padding is None or bool((real.long().diff(dim=1) <= 0).all()):  # no padding, or on the right alone
            return cls(group_size, size, padding, None)
        ones = torch.ones(size, size, dtype=torch.bool, device=real.device)
        # a padded position sees itself: the softmax of a row without any key would be NaN
        visible = (ones.tril() & real[:, None, :]) | torch.eye(size, dtype=torch.bool, device=real.device)
        causal = torch.zeros(visible.shape, dtype=dtype, device=real.device).masked_fill_(~visible, -torch.inf)
        return cls(group_size, size, padding, causal[:, None])

    def prompt_attention(self, queries: int) -> dict[str, Any]:
        """Arguments of `attend` for `queries` prompt positions over the prompt: all P causally, or the last one alone."""
        if queries < self.prompt_size:
            return {"bias": self.padding}  # the last position sees every real one
        return {"causal": self.causal is None, "bias": self.causal}

    def split_completions(self, states: Tensor) -> Tensor:
        """Make every completion a row of its own: `[B, H, G*C, ...]` -> `[B*G, H, C, ...]`."""
        return states.unflatten(2, (self.group_size, -1)).transpose(1, 2).flatten(0, 1)

    def join_completions(self, states: Tensor) -> Tensor:
        """Undo `split_completions`: `[B*G, H, C, ...]` -> `[B, H, G*C, ...]`."""
        return states.unflatten(0, (-1, self.group_size)).transpose(1, 2).flatten(2, 3)


def shared_prefix_states(
    trunk: nn.Module,
    prompt: Tensor,
    prompt_mask: Tensor | None,
    completions: Tensor,
    group_size: int,
) -> Tensor:
    """Final hidden states of each prompt's last position and of all its completion positions.

    Args:
        trunk: the decoder without its output layer; see `supports_shared_prefix`.
        prompt: prompt embeddings `[B, P, D]`.
        prompt_mask: `[B, P]`, padding on either side; None without padding (also for fake tensors, which have no values).
        completions: token embeddings `[B, G*C, D]`, completion after completion.
        group_size: completions per prompt, G.

    Returns:
        `[B, 1 + G*C, D]`: the prompt's last position, which predicts every first token, then the completions.
    """
    prompt_size, device = prompt.shape[1], prompt.device
    unpadded = Layout(group_size, prompt_size, None, None) if prompt_mask is None else None
    prompt_mask = prompt.new_ones(prompt.shape[:2], dtype=torch.bool) if prompt_mask is None else prompt_mask
    last = (torch.arange(len(prompt), device=device), last_position(prompt_mask))
    # every completion goes on from the last position of its prompt
    steps = torch.arange(completions.shape[1] // group_size, device=device).repeat(group_size)
    positions = torch.cat([position_ids(prompt_mask), prompt_mask.long().sum(1, keepdim=True) + steps], dim=1)
    cos, sin = trunk.rotary_emb(prompt, positions)  # type: ignore[operator]
    layouts: dict[torch.dtype, Layout] = {}

    def select(states: Tensor) -> Tensor:
        return torch.cat([states[last][:, None], states[:, prompt_size:]], dim=1)

    def attention(layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        dtype = value.dtype  # known only here: autocast decides what the projections return
        layout = unpadded or layouts.get(dtype) or layouts.setdefault(dtype, Layout.of(prompt_mask, group_size, dtype))
        return _SharedPrefixAttention.apply(query, key, value, cos.to(dtype), sin.to(dtype), select, layout)

    return run_layers(trunk, torch.cat([prompt, completions], dim=1), attention, select)


class _SharedPrefixAttention(torch.autograd.Function):
    """Rotary embedding and three attentions: prompt over prompt, completions over prompt, completions over themselves.

    Inputs: query `[B, Q + G*C, H, d]` with Q = P, or Q = 1 in the last layer, which runs for the prompt's last position alone;
    key and value `[B, P + G*C, KV, d]`; cos and sin `[B, P + G*C, d]`. Output: as query.

    One autograd function for all of it, because the backward pass of either set of keys needs the merged output and
    log-sum-exp, which autograd through two separate attentions would not use (see `erv.engine.attention`).
    """

    @staticmethod
    def forward(
        ctx: FunctionCtx,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        cos: Tensor,
        sin: Tensor,
        select: SelectPositions,
        layout: Layout,
    ) -> Tensor:
        size = layout.prompt_size
        queries = query.shape[1] - key.shape[1] + size  # prompt positions that have a query, P or 1
        rotations = ((cos, sin) if queries == size else (select(cos), select(sin))) + (cos, sin)
        query, key = rotate(query, *rotations[:2]).transpose(1, 2), rotate(key, *rotations[2:]).transpose(1, 2)
        value, scale = value.transpose(1, 2), query.shape[-1] ** -0.5
        output = torch.empty_like(query)
        lse = output.new_empty(output.shape[:3], dtype=torch.float32)
        prompt = (key[:, :, :size], value[:, :, :size])
        output[:, :, :queries], lse[:, :, :queries] = attend(
            query[:, :, :queries], *prompt, scale, **layout.prompt_attention(queries)
        )
        if query.shape[2] > queries:
            completion_query = query[:, :, queries:]
            over_completion = attend(
                layout.split_completions(completion_query),
                layout.split_completions(key[:, :, size:]),
                layout.split_completions(value[:, :, size:]),
                scale,
                causal=True,
            )
            over_prompt = attend(completion_query, *prompt, scale, bias=layout.padding)
            output[:, :, queries:], lse[:, :, queries:] = merge_attention(
                *over_prompt, *map(layout.join_completions, over_completion)
            )
        ctx.save_for_backward(query, key, value, output, lse, *rotations)
        ctx.layout, ctx.scale = layout, scale  # type: ignore[attr-defined]
        return output.transpose(1, 2)

    @staticmethod
    def backward(ctx: FunctionCtx, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, output, lse, *rotations = ctx.saved_tensors  # type: ignore[attr-defined]
        layout, scale = ctx.layout, ctx.scale  # type: ignore[attr-defined]
        size, queries = layout.prompt_size, query.shape[2] - key.shape[2] + layout.prompt_size
        by_query = (grad_output.transpose(1, 2), query, output, lse)  # each [B, H, Q + G*C, ...]

        def backward(by_query: Sequence[Tensor], keys_values: Sequence[Tensor], **mask: Any) -> tuple[Tensor, ...]:
            (grad_output, query, output, lse), (key, value) = by_query, keys_values
            return attend_backward(grad_output, query, key, value, output, lse, scale, **mask)

        prompt = (key[:, :, :size], value[:, :, :size])
        grad_query, grad_key, grad_value = (torch.empty_like(states) for states in (query, key, value))
        grad_query[:, :, :queries], grad_key[:, :, :size], grad_value[:, :, :size] = backward(
            [states[:, :, :queries] for states in by_query], prompt, **layout.prompt_attention(queries)
        )
        if query.shape[2] > queries:
            by_completion = [states[:, :, queries:] for states in by_query]
            from_prompt = backward(by_completion, prompt, bias=layout.padding)
            from_completion = backward(
                [layout.split_completions(states) for states in by_completion],
                [layout.split_completions(states[:, :, size:]) for states in (key, value)],
                causal=True,
            )
            on_query, on_key, on_value = (layout.join_completions(grad) for grad in from_completion)
            grad_query[:, :, queries:] = on_query.add_(from_prompt[0])
            grad_key[:, :, size:], grad_value[:, :, size:] = on_key, on_value
            # the prompt's keys and values get the gradients of all completions beside its own
            grad_key[:, :, :size] += from_prompt[1]
            grad_value[:, :, :size] += from_prompt[2]
        query_cos, query_sin, cos, sin = rotations
        return (
            rotate(grad_query.transpose(1, 2), query_cos, -query_sin),
            rotate(grad_key.transpose(1, 2), cos, -sin),
            grad_value.transpose(1, 2),
            *[None] * 4,
        )
