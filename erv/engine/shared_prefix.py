"""A prompt and its G completions as one row [prompt | c_1 | ... | c_G] in which the prompt is run once.

A completion's position sees the whole prompt and its own completion up to itself, so hidden states and gradients are
those of G separate rows. Trunk tokens fall from G (P + C) to P + G C per prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx

from erv.engine.attention import attend, attend_backward, join
from erv.engine.layers import Rows, last_position, padding_bias, positions, rotate, run_layers


@dataclass(frozen=True, slots=True)
class Layout:
    """How a row is cut: `group` completions follow `size` prompt positions.

    padding: `[B, 1, 1, P]`, -inf at padding, None without. causal: `[B, 1, P, P]`, -inf for what comes later or is
    padding, None where plain causal attention will do: padding on the right is seen by no real position.
    """

    group: int
    size: int
    padding: Tensor | None
    causal: Tensor | None

    def of_prompt(self, asked: int) -> dict[str, Any]:
        """What `asked` prompt positions see of the prompt: all of them causally, or the last one everything."""
        if asked < self.size:
            return {"bias": self.padding}
        return {"causal": self.causal is None, "bias": self.causal}

    def apart(self, states: Tensor) -> Tensor:
        """`[B, H, G*C, ...]` as `[B*G, H, C, ...]`."""
        return states.unflatten(2, (self.group, -1)).transpose(1, 2).flatten(0, 1)

    def together(self, states: Tensor) -> Tensor:
        """The inverse of `apart`."""
        return states.unflatten(0, (-1, self.group)).transpose(1, 2).flatten(2, 3)

    @classmethod
    def of(cls, prompt_mask: Tensor, group: int, dtype: torch.dtype) -> Layout:
        """The layout for prompts with `prompt_mask` `[B, P]`; `dtype` is that of keys and values."""
        real, size = prompt_mask.bool(), prompt_mask.shape[1]
        padding = padding_bias(real, dtype)
        if padding is None or bool((real.long().diff(dim=1) <= 0).all()):
            return cls(group, size, padding, None)
        ones = torch.ones(size, size, dtype=torch.bool, device=real.device)
        # a padded position sees itself: a row without any key would turn into NaN
        visible = (ones.tril() & real[:, None, :]) | torch.eye(size, dtype=torch.bool, device=real.device)
        causal = torch.zeros(visible.shape, dtype=dtype, device=real.device).masked_fill_(~visible, -torch.inf)
        return cls(group, size, padding, causal[:, None])


def stream_states(trunk: nn.Module, prompt: Tensor, prompt_mask: Tensor | None, own: Tensor, group: int) -> Tensor:
    """Final hidden states `[B, 1 + G*C, D]` of the prompt's last position and of all completion positions.

    prompt `[B, P, D]` with prompt_mask `[B, P]`, padded on either side, or None without padding; own `[B, G*C, D]`,
    completion after completion.
    """
    size, device = prompt.shape[1], prompt.device
    unpadded = Layout(group, size, None, None) if prompt_mask is None else None
    prompt_mask = prompt.new_ones(prompt.shape[:2], dtype=torch.bool) if prompt_mask is None else prompt_mask
    last = (torch.arange(len(prompt), device=device), last_position(prompt_mask))
    length = own.shape[1] // group
    restart = prompt_mask.long().sum(1, keepdim=True) + torch.arange(length, device=device).repeat(group)
    place = torch.cat([positions(prompt_mask), restart], dim=1)
    cos, sin = trunk.rotary_emb(prompt, place)  # type: ignore[operator]
    layouts: dict[torch.dtype, Layout] = {}

    def read(states: Tensor) -> Tensor:
        return torch.cat([states[last][:, None], states[:, size:]], dim=1)

    def attention(layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        dtype = value.dtype  # autocast decides what the projections give
        layout = unpadded or layouts.get(dtype) or layouts.setdefault(dtype, Layout.of(prompt_mask, group, dtype))
        return _Stream.apply(query, key, value, cos.to(dtype), sin.to(dtype), read, layout)

    return run_layers(trunk, torch.cat([prompt, own], dim=1), attention, read)


class _Stream(torch.autograd.Function):
    """Rotation and three attentions: prompt over itself, completions over the prompt, completions over themselves.

    query `[B, Q + G*C, H, d]` with Q = P, or Q = 1 for the prompt's last position alone; key, value `[B, P + G*C, KV, d]`.
    """

    @staticmethod
    def forward(
        ctx: FunctionCtx, query: Tensor, key: Tensor, value: Tensor, cos: Tensor, sin: Tensor, read: Rows, layout: Layout
    ) -> Tensor:  # fmt: skip
        size, asked = layout.size, query.shape[1] - key.shape[1] + layout.size
        turns = ((cos, sin) if asked == size else (read(cos), read(sin))) + (cos, sin)
        query, key = rotate(query, *turns[:2]).transpose(1, 2), rotate(key, *turns[2:]).transpose(1, 2)
        value, scale = value.transpose(1, 2), query.shape[-1] ** -0.5
        output = torch.empty_like(query)
        lse = output.new_empty(output.shape[:3], dtype=torch.float32)
        prompt = (key[:, :, :size], value[:, :, :size])
        output[:, :, :asked], lse[:, :, :asked] = attend(
            query[:, :, :asked], *prompt, scale, **layout.of_prompt(asked)
        )  # fmt: skip
        if query.shape[2] > asked:
            own_query, own_key, own_value = map(
                layout.apart, (query[:, :, asked:], key[:, :, size:], value[:, :, size:])
            )
            to_own = map(layout.together, attend(own_query, own_key, own_value, scale, causal=True))
            to_prompt = attend(query[:, :, asked:], *prompt, scale, bias=layout.padding)
            output[:, :, asked:], lse[:, :, asked:] = join(*to_prompt, *to_own)
        ctx.save_for_backward(query, key, value, output, lse, *turns)
        ctx.layout, ctx.scale = layout, scale  # type: ignore[attr-defined]
        return output.transpose(1, 2)

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, output, lse, *turns = ctx.saved_tensors  # type: ignore[attr-defined]
        layout, scale = ctx.layout, ctx.scale  # type: ignore[attr-defined]
        size, asked = layout.size, query.shape[2] - key.shape[2] + layout.size
        gradient = gradient.transpose(1, 2)
        asking = (gradient, query, output, lse)

        def backward(asking: Sequence[Tensor], keys: Sequence[Tensor], **visible: Any) -> tuple[Tensor, ...]:
            (gradient, query, output, lse), (key, value) = asking, keys
            return attend_backward(gradient, query, key, value, output, lse, scale, **visible)

        prompt = (key[:, :, :size], value[:, :, :size])
        found = [torch.empty_like(states) for states in (query, key, value)]
        found[0][:, :, :asked], found[1][:, :, :size], found[2][:, :, :size] = backward(
            [s[:, :, :asked] for s in asking], prompt, **layout.of_prompt(asked)
        )
        if query.shape[2] > asked:
            tail = [s[:, :, asked:] for s in asking]
            from_prompt = backward(tail, prompt, bias=layout.padding)
            own_keys = [layout.apart(s[:, :, size:]) for s in (key, value)]
            from_own = backward([layout.apart(s) for s in tail], own_keys, causal=True)
            on_query, on_key, on_value = (layout.together(g) for g in from_own)
            found[0][:, :, asked:] = on_query.add_(from_prompt[0])
            for whole, own, shared in zip(found[1:], (on_key, on_value), from_prompt[1:], strict=True):
                whole[:, :, size:] = own
                whole[:, :, :size] += shared
        on_query, on_key, on_value = (states.transpose(1, 2) for states in found)
        query_cos, query_sin, cos, sin = turns
        return rotate(on_query, query_cos, -query_sin), rotate(on_key, cos, -sin), on_value, None, None, None, None
