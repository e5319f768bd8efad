"""Sampling G completions per prompt: one prefill per prompt, shared keys, and finished rows leave the batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel

from erv.engine.kv_cache import start
from erv.engine.layers import trunk_and_head
from erv.engine.sampling import Sampling, draw, uniforms

LEAVE_AT = 0.75  # rows are dropped when this share of the slots would be left: dropping copies the own-token cache


class TooLong(ValueError):
    """A prompt and its completion do not fit the decoder."""


@dataclass(frozen=True, slots=True)
class Rollout:
    """N = B * G completions, prompt-major.

    tokens: `[N, C]`, right-padded with pad_id, C the longest completion. mask: `[N, C]` int64, 1 up to and including
    the end token. logps: `[N, C]` fp32 of the tokens under the distribution they were drawn from (greedy: under the
    policy itself), 0 outside the mask. finished: `[N]` bool, an end token came before max_new_tokens ran out.
    """

    tokens: Tensor
    mask: Tensor
    logps: Tensor
    finished: Tensor


@torch.no_grad()
def rollout(
    decoder: PreTrainedModel,
    prompt_embeds: Tensor,
    prompt_mask: Tensor,
    group_size: int,
    max_new_tokens: int,
    eos_ids: Sequence[int],
    pad_id: int,
    sampling: Sampling | None = None,
    seeds: Sequence[int] | None = None,
) -> Rollout:
    """Complete every prompt `[B, P, D]` (mask `[B, P]`, padded on either side) `group_size` times.

    seeds: one per prompt; a row's random numbers depend on its prompt's seed, its place in the group and the step, not
    on the batch or on who has finished. Without seeds, or at temperature 0, decoding is greedy.
    """
    sampling = Sampling() if sampling is None else sampling
    _check(prompt_embeds, prompt_mask, group_size, max_new_tokens, eos_ids, seeds)
    check_positions(decoder, prompt_mask, max_new_tokens)
    greedy = seeds is None or sampling.temperature == 0
    if greedy:
        sampling = Sampling()
    device, batch = prompt_embeds.device, prompt_embeds.shape[0]
    numbers = None if greedy or seeds is None else uniforms(seeds, group_size, max_new_tokens).to(device)
    ends = torch.tensor(list(eos_ids), device=device)
    _, head = trunk_and_head(decoder)

    tokens = torch.full((batch, group_size, max_new_tokens), pad_id, device=device)
    logps = torch.zeros(tokens.shape, dtype=torch.float32, device=device)
    done = torch.zeros(batch, group_size, dtype=torch.bool, device=device)
    lengths = torch.full((batch, group_size), max_new_tokens, device=device)
    decoding = start(decoder, prompt_embeds, prompt_mask, group_size, max_new_tokens)
    # the slots that still decode: prompt[b'] and its completions place[b', g']
    prompt = torch.arange(batch, device=device)
    place = torch.arange(group_size, device=device).expand(batch, group_size)
    hidden = decoding.prompt_state[:, None].expand(batch, group_size, -1)

    for step in range(max_new_tokens):
        logits = sampling.logits((hidden.flatten(0, 1) @ head.t()).float())
        at = (prompt[:, None].expand_as(place), place)
        chosen, logp = draw(logits, None if numbers is None else numbers[at[0], step, at[1]].flatten())
        chosen, logp = chosen.view_as(place), logp.view_as(place)
        live = ~done[at]
        tokens[*at, step] = torch.where(live, chosen, pad_id)
        logps[*at, step] = torch.where(live, logp, 0.0)
        ending = live & torch.isin(chosen, ends)
        lengths[at] = torch.where(ending, step + 1, lengths[at])
        done[at] = done[at] | ending
        if step + 1 == max_new_tokens or bool(done.all()):
            break
        kept = _compact(done[at])
        if kept is not None:
            prompts, columns = kept
            prompt, place = prompt[prompts], place[prompts].gather(1, columns)
            chosen = chosen[prompts].gather(1, columns)
            decoding.keep(prompts, columns)
        hidden = decoding.step(chosen)

    if not bool(logps.isfinite().all()):
        raise FloatingPointError(
            "log-probs of a rollout must be finite; got NaN or infinity from the policy: its weights or its inputs are not "
            "finite; look for them there, or start from an earlier checkpoint"
        )
    length = int(lengths.max())
    tokens, logps = tokens[..., :length].flatten(0, 1), logps[..., :length].flatten(0, 1)
    mask = (torch.arange(length, device=device) < lengths.view(-1, 1)).long()
    return Rollout(tokens, mask, logps, done.flatten())


def _compact(done: Tensor) -> tuple[Tensor, Tensor] | None:
    """Which slots to keep, as (prompts `[B']`, columns `[B', G']`), or None while dropping rows does not pay.

    Prompts must keep the same number of rows for the shared attention, so a prompt with fewer unfinished completions
    than the others keeps some finished ones.
    """
    open_rows = (~done).sum(1)
    prompts = open_rows.nonzero().squeeze(1)
    width = int(open_rows.max())
    if len(prompts) * width > LEAVE_AT * done.numel():
        return None
    unfinished_first = done[prompts].to(torch.uint8).argsort(dim=1, stable=True)
    return prompts, unfinished_first[:, :width]


def check_positions(decoder: PreTrainedModel, prompt_mask: Tensor, max_new_tokens: int) -> None:
    """TooLong when the longest prompt and its completion do not fit the decoder's positions."""
    limit = getattr(decoder.config.get_text_config(decoder=True), "max_position_embeddings", None)
    longest = int(prompt_mask.sum(1).max())
    if limit is not None and longest + max_new_tokens > limit:
        raise TooLong(
            f"prompt and completion must fit the decoder's {limit} positions (max_position_embeddings); got a prompt of "
            f"{longest} and max_new_tokens={max_new_tokens}; set max_new_tokens to at most {limit - longest}, or shorten "
            "the prompt"
        )


def _check(
    embeds: Tensor,
    mask: Tensor,
    group_size: int,
    max_new_tokens: int,
    eos_ids: Sequence[int],
    seeds: Sequence[int] | None,
) -> None:
    if embeds.shape[:2] != mask.shape or not bool(mask.bool().any(1).all()):
        raise ValueError(
            f"prompt_mask must be [B, P] like the prompts and set somewhere in each row; got prompts "
            f"{tuple(embeds.shape)}, mask {tuple(mask.shape)}"
        )
    if group_size < 1 or max_new_tokens < 1 or not eos_ids:
        raise ValueError(
            f"group_size and max_new_tokens must be at least 1 and eos_ids not empty; got group_size={group_size}, "
            f"max_new_tokens={max_new_tokens}, eos_ids={list(eos_ids)}"
        )
    if seeds is not None and len(seeds) != len(mask):
        raise ValueError(f"one seed per prompt: got {len(seeds)} seeds for {len(mask)} prompts")


def rows_of(prompts: Sequence[int], group_size: int) -> list[int]:
    """Rows of the completions of `prompts` in anything prompt-major."""
    return [b * group_size + g for b in prompts for g in range(group_size)]


def replaced(old: Rollout, new: Rollout, rows: Sequence[int]) -> Rollout:
    """`old` with `rows` taken from `new`, whose rows they are in this order; widths may differ."""
    width = max(old.tokens.shape[1], new.tokens.shape[1])

    def joined(before: Tensor, after: Tensor) -> Tensor:
        if before.ndim == 2:
            before, after = (F.pad(t, (0, width - t.shape[1])) for t in (before, after))
        result = before.clone()
        result[list(rows)] = after
        return result

    # new columns are padded with 0, whatever the padding token is: nothing reads outside the mask
    return replace(old, **{f.name: joined(getattr(old, f.name), getattr(new, f.name)) for f in fields(Rollout)})


def trained_mask(rollout: Rollout, without_overlong: bool) -> Tensor:
    """The tokens that are trained on, `[N, C]`: those sampled, and none of an unfinished completion by option."""
    return rollout.mask * rollout.finished[:, None] if without_overlong else rollout.mask
