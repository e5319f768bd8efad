"""Key-value caches for sampling G completions per prompt: the prompt's keys and values once, each completion's beside them."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.cache_utils import DynamicCache

from erv.engine.attention import attend, merge_attention
from erv.engine.layers import (
    last_position,
    pad_left,
    padding_bias,
    position_ids,
    rotate,
    run_layers,
    supports_shared_prefix,
)
from erv.engine.shared_prefix import Layout


class DecodingState(Protocol):
    """A decoder in the middle of sampling.

    Rows are `[B, G]`: B prompts with unfinished completions, and the same number G of completions for each. Both shrink.
    """

    prompt_state: Tensor
    """Hidden states `[B, D]` of the prompts' last positions, which predict the first tokens."""

    def step(self, tokens: Tensor) -> Tensor:
        """Append `tokens` `[B, G]`; return the hidden states `[B, G, D]` that predict the next ones."""

    def keep(self, prompts: Tensor, columns: Tensor) -> None:
        """Drop all rows but the completions `columns` `[B', G']` of the prompts `prompts` `[B']`."""


def start_decoding(
    decoder: PreTrainedModel, embeds: Tensor, mask: Tensor, group_size: int, max_new_tokens: int
) -> DecodingState:
    """Run the prompts `[B, P, D]` (mask `[B, P]`) and prepare for `max_new_tokens` tokens of `group_size` rows each."""
    kind = SharedPrefixState if supports_shared_prefix(decoder) else SeparateRowsState
    return kind(decoder, embeds, mask, group_size, max_new_tokens)


class SharedPrefixState:
    """Decoding with cascade attention: a prompt's keys and values are stored and read once for all of its completions.

    A decoding step is bound by the memory traffic of the cache. With G completions per prompt the prompt's part of it, by
    far the larger one here (media tokens), is read once per step instead of G times. The completions' keys and values are
    allocated once, `[B, G, KV, max_new_tokens, d]` per layer, and filled in place: appending would copy them at every step.
    """

    def __init__(
        self, decoder: PreTrainedModel, embeds: Tensor, mask: Tensor, group_size: int, max_new_tokens: int
    ) -> None:
        self.embed, self.trunk = decoder.get_input_embeddings(), decoder.get_decoder()
        self.max_new_tokens, self.length = max_new_tokens, 0  # length: tokens appended so far
        self.rows = (len(mask), group_size)
        self.mask, self.prompt_lengths = mask.bool(), mask.long().sum(1)
        self.padding: Tensor | None = None  # attention bias of the prompts, [B, 1, 1, P]
        self.prompt_cache: list[tuple[Tensor, Tensor]] = []  # per layer: key, value [B, KV, P, d]
        self.completion_cache: list[tuple[Tensor, Tensor]] = []  # per layer: key, value [B, G, KV, max_new_tokens, d]
        self.prompt_state = self._prefill(embeds)

    def _prefill(self, embeds: Tensor) -> Tensor:
        cos, sin = self.trunk.rotary_emb(embeds, position_ids(self.mask))
        last = (torch.arange(len(embeds), device=embeds.device), last_position(self.mask))

        def select(states: Tensor) -> Tensor:
            return states[last][:, None]

        def attention(layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            dtype, queries = value.dtype, query.shape[1]
            rotation = (cos.to(dtype), sin.to(dtype))
            query_rotation = (
                rotation if queries == key.shape[1] else map(select, rotation)
            )  # one query in the last layer
            query = rotate(query, *query_rotation).transpose(1, 2)
            cache = (rotate(key, *rotation).transpose(1, 2), value.transpose(1, 2))
            self.prompt_cache.append(cache)
            layout = Layout.of(self.mask, self.rows[1], dtype)
            self.padding = layout.padding
            output, _ = attend(query, *cache, query.shape[-1] ** -0.5, **layout.prompt_attention(queries))
            return output.transpose(1, 2)

        return run_layers(self.trunk, embeds, attention, select)[:, 0]

    def step(self, tokens: Tensor) -> Tensor:
        """Append `tokens` `[B, G]`; return the hidden states `[B, G, D]` that predict the next ones."""
        hidden = self.embed(tokens.reshape(-1, 1))
        positions = (self.prompt_lengths[:, None] + self.length).expand(self.rows).reshape(-1, 1)
        self.rotation = self.trunk.rotary_emb(hidden, positions)
        hidden = run_layers(self.trunk, hidden, self._attention, lambda states: states)
        self.length += 1
        return hidden.view(*self.rows, -1)

    def _attention(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Attention of one new token per row, query `[B*G, 1, H, d]`, over its prompt and its own completion."""
        (batch, group), (rows, _, heads, dim), kv_heads = self.rows, query.shape, key.shape[2]
        cos, sin = (part.to(value.dtype) for part in self.rotation)
        # the query heads that share a key head become queries of one head: no key is repeated
        query, scale = rotate(query, cos, sin).view(rows, kv_heads, heads // kv_heads, dim), dim**-0.5
        if len(self.completion_cache) == layer:  # allocated at the first token, when dtype and heads are known
            shape = (batch, group, kv_heads, self.max_new_tokens, dim)
            self.completion_cache.append((value.new_empty(shape), value.new_empty(shape)))
        for cache, new in zip(self.completion_cache[layer], (rotate(key, cos, sin), value), strict=True):
            cache[:, :, :, self.length] = new.view(batch, group, kv_heads, dim)
        completion_key, completion_value = (
            cache.flatten(0, 1)[:, :, : self.length + 1] for cache in self.completion_cache[layer]
        )
        # over the prompt, all rows of a prompt are queries of one batch entry: its keys are read once for all of them
        by_prompt = query.view(batch, group, kv_heads, -1, dim).transpose(1, 2).flatten(2, 3)
        output, lse = attend(by_prompt, *self.prompt_cache[layer], scale, bias=self.padding)
        output = output.unflatten(2, (group, -1)).transpose(1, 2).reshape(query.shape)
        lse = lse.unflatten(2, (group, -1)).transpose(1, 2).reshape(query.shape[:-1])
        merged, _ = merge_attention(output, lse, *attend(query, completion_key, completion_value, scale))
        return merged.reshape(rows, 1, heads, dim)

    def keep(self, prompts: Tensor, columns: Tensor) -> None:
        """Drop all rows but the completions `columns` `[B', G']` of the prompts `prompts` `[B']`."""
        rows = (prompts[:, None], columns)
        self.completion_cache = [(key[rows], value[rows]) for key, value in self.completion_cache]
        if len(prompts) < self.rows[0]:
            self.prompt_cache = [(key[prompts], value[prompts]) for key, value in self.prompt_cache]
            self.mask, self.prompt_lengths = self.mask[prompts], self.prompt_lengths[prompts]
            self.padding = None if self.padding is None else padding_bias(self.mask, self.padding.dtype)
        self.rows = (columns.shape[0], columns.shape[1])


class SeparateRowsState:
    """Decoding with any decoder, by its own forward pass and cache; every row holds a copy of its prompt's keys and values."""

    def __init__(
        self, decoder: PreTrainedModel, embeds: Tensor, mask: Tensor, group_size: int, max_new_tokens: int
    ) -> None:
        self.embed, self.trunk = decoder.get_input_embeddings(), decoder.get_decoder()
        self.cache = DynamicCache(config=decoder.config)
        embeds, mask = pad_left(embeds, mask)  # new tokens are appended on the right
        self.prompt_state = self._run(embeds, mask.long(), position_ids(mask))[:, -1]  # each prompt is still run once
        self.cache.batch_repeat_interleave(group_size)
        self.mask, self.group_size = mask.long().repeat_interleave(group_size, 0), group_size  # mask: [B*G, P + tokens]
        self.next_position = self.mask.sum(1, keepdim=True)

    def _run(self, embeds: Tensor, mask: Tensor, positions: Tensor) -> Tensor:
        hidden: Tensor = self.trunk(
            inputs_embeds=embeds,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=self.cache,
            use_cache=True,
        ).last_hidden_state
        return hidden

    def step(self, tokens: Tensor) -> Tensor:
        """Append `tokens` `[B, G]`; return the hidden states `[B, G, D]` that predict the next ones."""
        self.mask = torch.cat([self.mask, torch.ones_like(self.next_position)], dim=1)
        hidden = self._run(self.embed(tokens.reshape(-1, 1)), self.mask, self.next_position)
        self.next_position = self.next_position + 1
        return hidden.view(*tokens.shape, -1)

    def keep(self, prompts: Tensor, columns: Tensor) -> None:
        """Drop all rows but the completions `columns` `[B', G']` of the prompts `prompts` `[B']`."""
        rows = (prompts[:, None] * self.group_size + columns).flatten()
        self.cache.batch_select_indices(rows)
        self.mask, self.next_position, self.group_size = self.mask[rows], self.next_position[rows], columns.shape[1]
