"""A decoder's state while it samples: the prompt's keys and values once per prompt, every completion's own beside them."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.cache_utils import DynamicCache

from erv.engine.attention import attend, join
from erv.engine.layers import is_known, last_position, left_padded, padding_bias, positions, rotate, run_layers
from erv.engine.shared_prefix import Layout


class Decoding(Protocol):
    """What a rollout needs. Slots are `[B, G]`: B prompts that still decode, with the same number of rows each."""

    prompt_state: Tensor  # [B, D], the hidden state that predicts the first token

    def step(self, tokens: Tensor) -> Tensor:
        """Hidden states `[B, G, D]` after appending `tokens` `[B, G]`."""

    def keep(self, prompts: Tensor, columns: Tensor) -> None:
        """Keep the slots `columns` `[B', G']` of `prompts` `[B']`."""


def start(decoder: PreTrainedModel, embeds: Tensor, mask: Tensor, group_size: int, steps: int) -> Decoding:
    """Run the prompts `[B, P, D]` (mask `[B, P]`) and be ready for `steps` tokens of `group_size` rows each."""
    return (SharedPrefix if is_known(decoder) else Apart)(decoder, embeds, mask, group_size, steps)


class SharedPrefix:
    """A prompt's keys and values are read once per step for all of its rows and their query heads (cascade attention).

    Own keys and values are allocated once, `[B, G, KV, steps, d]`, and filled in place.
    """

    def __init__(self, decoder: PreTrainedModel, embeds: Tensor, mask: Tensor, group_size: int, steps: int) -> None:
        self.embed, self.trunk = decoder.get_input_embeddings(), decoder.get_decoder()
        self.steps, self.length, self.slots = steps, 0, (len(mask), group_size)
        self.mask, self.position = mask.bool(), mask.long().sum(1)
        self.prefix: list[tuple[Tensor, Tensor]] = []
        self.own: list[tuple[Tensor, Tensor]] = []
        self.padding: Tensor | None = None
        self.prompt_state = self._prefill(embeds)

    def _prefill(self, embeds: Tensor) -> Tensor:
        cos, sin = self.trunk.rotary_emb(embeds, positions(self.mask))
        last = (torch.arange(len(embeds), device=embeds.device), last_position(self.mask))

        def read(states: Tensor) -> Tensor:
            return states[last][:, None]

        def attention(layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            dtype, asked = value.dtype, query.shape[1]
            turn = (cos.to(dtype), sin.to(dtype))
            query = rotate(query, *(turn if asked == key.shape[1] else map(read, turn))).transpose(1, 2)
            prefix = (rotate(key, *turn).transpose(1, 2), value.transpose(1, 2))
            self.prefix.append(prefix)
            layout = Layout.of(self.mask, self.slots[1], dtype)
            self.padding = layout.padding
            return attend(query, *prefix, query.shape[-1] ** -0.5, **layout.of_prompt(asked))[0].transpose(1, 2)

        return run_layers(self.trunk, embeds, attention, read)[:, 0]

    def step(self, tokens: Tensor) -> Tensor:
        """Hidden states `[B, G, D]` after appending `tokens` `[B, G]`."""
        hidden = self.embed(tokens.reshape(-1, 1))
        place = (self.position[:, None] + self.length).expand(self.slots).reshape(-1, 1)
        self.turn = self.trunk.rotary_emb(hidden, place)
        hidden = run_layers(self.trunk, hidden, self._attention, lambda states: states)
        self.length += 1
        return hidden.view(*self.slots, -1)

    def _attention(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        (batch, group), (rows, _, heads, dim), kv = self.slots, query.shape, key.shape[2]
        cos, sin = (turn.to(value.dtype) for turn in self.turn)
        query, scale = rotate(query, cos, sin).view(rows, kv, heads // kv, dim), dim**-0.5
        if len(self.own) == layer:
            shape = (batch, group, kv, self.steps, dim)
            self.own.append((value.new_empty(shape), value.new_empty(shape)))
        for cache, new in zip(self.own[layer], (rotate(key, cos, sin), value), strict=True):
            cache[:, :, :, self.length] = new.view(batch, group, kv, dim)
        own_key, own_value = (cache.flatten(0, 1)[:, :, : self.length + 1] for cache in self.own[layer])
        # all rows of a prompt and all query heads of a key head ask at once
        together = query.view(batch, group, kv, -1, dim).transpose(1, 2)
        to_prompt, lse = attend(together.flatten(2, 3), *self.prefix[layer], scale, bias=self.padding)
        to_prompt = to_prompt.unflatten(2, (group, -1)).transpose(1, 2).reshape(query.shape)
        lse = lse.unflatten(2, (group, -1)).transpose(1, 2).reshape(query.shape[:-1])
        joint, _ = join(to_prompt, lse, *attend(query, own_key, own_value, scale))
        return joint.reshape(rows, 1, heads, dim)

    def keep(self, prompts: Tensor, columns: Tensor) -> None:
        """Keep the slots `columns` `[B', G']` of `prompts` `[B']`."""
        self.own = [(key[prompts[:, None], columns], value[prompts[:, None], columns]) for key, value in self.own]
        if len(prompts) < self.slots[0]:
            self.prefix = [(key[prompts], value[prompts]) for key, value in self.prefix]
            self.mask, self.position = self.mask[prompts], self.position[prompts]
            self.padding = None if self.padding is None else padding_bias(self.mask, self.padding.dtype)
        self.slots = (columns.shape[0], columns.shape[1])


class Apart:
    """Any decoder, by its own forward pass: every row has the prompt's keys in a cache of its own."""

    def __init__(self, decoder: PreTrainedModel, embeds: Tensor, mask: Tensor, group_size: int, steps: int) -> None:
        self.embed, self.trunk = decoder.get_input_embeddings(), decoder.get_decoder()
        self.cache = DynamicCache(config=decoder.config)
        embeds, mask = left_padded(embeds, mask)
        self.prompt_state = self._run(embeds, mask.long(), positions(mask))[:, -1]
        self.cache.batch_repeat_interleave(group_size)
        self.mask, self.group = mask.long().repeat_interleave(group_size, 0), group_size
        self.position = self.mask.sum(1, keepdim=True)

    def _run(self, embeds: Tensor, mask: Tensor, place: Tensor) -> Tensor:
        found: Tensor = self.trunk(
            inputs_embeds=embeds, attention_mask=mask, position_ids=place, past_key_values=self.cache, use_cache=True
        ).last_hidden_state
        return found

    def step(self, tokens: Tensor) -> Tensor:
        """Hidden states `[B, G, D]` after appending `tokens` `[B, G]`."""
        self.mask = torch.cat([self.mask, torch.ones_like(self.position)], dim=1)
        hidden = self._run(self.embed(tokens.reshape(-1, 1)), self.mask, self.position)
        self.position = self.position + 1
        return hidden.view(*tokens.shape, -1)

    def keep(self, prompts: Tensor, columns: Tensor) -> None:
        """Keep the slots `columns` `[B', G']` of `prompts` `[B']`."""
        rows = (prompts[:, None] * self.group + columns).flatten()
        self.cache.batch_select_indices(rows)
        self.mask, self.position, self.group = self.mask[rows], self.position[rows], columns.shape[1]
