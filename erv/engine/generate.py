"""Sample G completions per prompt: one prefill per prompt, shared prompt keys, and finished completions leave the batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel

from erv.engine.kv_cache import start_decoding
from erv.engine.layers import trunk_and_head
from erv.engine.sampling import Sampling, draw, uniforms
from erv.errors import UserError

# Finished rows are dropped once at most this fraction of the rows would remain. Dropping copies the completions' cache, so it
# has to pay: not at every completion that ends.
COMPACTION_THRESHOLD = 0.75


class PromptTooLong(UserError, ValueError):
    """A prompt and its completion do not fit the decoder's positions."""


@dataclass(frozen=True, slots=True)
class Rollout:
    """N = B * G completions, prompt-major: rows b * G to (b + 1) * G - 1 belong to prompt b."""

    tokens: Tensor
    """Token ids `[N, C]`, right-padded with the padding token; C is the length of the longest completion."""
    mask: Tensor
    """`[N, C]` int64: 1 up to and including the end token, 0 after it."""
    logps: Tensor
    """Log-probs `[N, C]` in fp32 of the tokens under the distribution they were drawn from (greedy: under the policy); 0
    outside the mask."""
    finished: Tensor
    """`[N]` bool: an end token came before max_new_tokens ran out."""


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
    """Sample `group_size` completions of every prompt.

    Args:
        decoder: a causal language model with input and output embeddings.
        prompt_embeds: `[B, P, D]`.
        prompt_mask: `[B, P]`, padding on either side.
        group_size: completions per prompt, G.
        max_new_tokens: longest completion, end token included.
        eos_ids: token ids that end a completion.
        pad_id: token id that fills the rows after their end.
        sampling: temperature and truncations; None samples from the policy as it is.
        seeds: one per prompt. A row's random numbers depend on its prompt's seed, its index in the group and the step, not on
            the other prompts or on what has finished. Without seeds, or at temperature 0, decoding is greedy.

    Raises:
        PromptTooLong: prompt and completion exceed the decoder's positions.
        FloatingPointError: the policy's log-probs are not finite.
    """
    sampling = Sampling() if sampling is None else sampling
    _check_arguments(prompt_embeds, prompt_mask, group_size, max_new_tokens, eos_ids, seeds)
    check_positions(decoder, prompt_mask, max_new_tokens)
    greedy = seeds is None or sampling.temperature == 0
    if greedy:
        sampling = Sampling()  # log-probs are then those of the policy
    device, batch = prompt_embeds.device, prompt_embeds.shape[0]
    numbers = None if greedy or seeds is None else uniforms(seeds, group_size, max_new_tokens).to(device)
    eos = torch.tensor(list(eos_ids), device=device)
    _, head = trunk_and_head(decoder)

    # of all B * G rows, whatever has left the batch
    tokens = torch.full((batch, group_size, max_new_tokens), pad_id, device=device)
    logps = torch.zeros(tokens.shape, dtype=torch.float32, device=device)
    done = torch.zeros(batch, group_size, dtype=torch.bool, device=device)
    lengths = torch.full((batch, group_size), max_new_tokens, device=device)
    state = start_decoding(decoder, prompt_embeds, prompt_mask, group_size, max_new_tokens)
    # of the rows that are still decoded: their prompts [B'] and their indices in the groups [B', G']
    prompt = torch.arange(batch, device=device)
    column = torch.arange(group_size, device=device).expand(batch, group_size)
    hidden = state.prompt_state[:, None].expand(batch, group_size, -1)

    for step in range(max_new_tokens):
        logits = sampling.logits((hidden.flatten(0, 1) @ head.t()).float())
        rows = (prompt[:, None].expand_as(column), column)
        token, logp = draw(logits, None if numbers is None else numbers[rows[0], step, rows[1]].flatten())
        token, logp = token.view_as(column), logp.view_as(column)
        active = ~done[rows]  # finished rows may still be decoded, until dropping them pays
        tokens[*rows, step] = torch.where(active, token, pad_id)
        logps[*rows, step] = torch.where(active, logp, 0.0)
        ends = active & torch.isin(token, eos)
        lengths[rows] = torch.where(ends, step + 1, lengths[rows])
        done[rows] = done[rows] | ends
        if step + 1 == max_new_tokens or bool(done.all()):
            break
        remaining = _compact(done[rows])
        if remaining is not None:
            prompts, columns = remaining
            prompt, column = prompt[prompts], column[prompts].gather(1, columns)
            token = token[prompts].gather(1, columns)
            state.keep(prompts, columns)
        hidden = state.step(token)

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
    """Choose the rows to go on with, as (prompts `[B']`, columns `[B', G']`); None while dropping rows does not pay.

    The rows form a rectangle, because shared attention needs the same number of queries per prompt: a prompt with fewer
    unfinished completions than the others keeps some finished ones.
    """
    unfinished = (~done).sum(1)
    prompts = unfinished.nonzero().squeeze(1)
    width = int(unfinished.max())
    if len(prompts) * width > COMPACTION_THRESHOLD * done.numel():
        return None
    unfinished_first = done[prompts].to(torch.uint8).argsort(dim=1, stable=True)
    return prompts, unfinished_first[:, :width]


def check_positions(decoder: PreTrainedModel, prompt_mask: Tensor, max_new_tokens: int) -> None:
    """Raise PromptTooLong when the longest prompt of `prompt_mask` `[B, P]` and its completion exceed the positions."""
    limit = getattr(decoder.config.get_text_config(decoder=True), "max_position_embeddings", None)
    longest = int(prompt_mask.sum(1).max())
    if limit is not None and longest + max_new_tokens > limit:
        raise PromptTooLong(
            f"prompt and completion must fit the decoder's {limit} positions (max_position_embeddings); got a prompt of "
            f"{longest} and max_new_tokens={max_new_tokens}; set max_new_tokens to at most {limit - longest}, or shorten "
            "the prompt"
        )


def _check_arguments(
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


def group_rows(prompts: Sequence[int], group_size: int) -> list[int]:
    """Row indices of all completions of `prompts` in a prompt-major tensor `[B * G, ...]`."""
    return [b * group_size + g for b in prompts for g in range(group_size)]


def replace_rows(old: Rollout, new: Rollout, rows: Sequence[int]) -> Rollout:
    """Copy `old` with its `rows` replaced by those of `new`, in this order; the longest completions may differ in length."""
    width = max(old.tokens.shape[1], new.tokens.shape[1])

    def merged(before: Tensor, after: Tensor) -> Tensor:
        if before.ndim == 2:
            before, after = (F.pad(t, (0, width - t.shape[1])) for t in (before, after))
        result = before.clone()
        result[list(rows)] = after
        return result

    # new columns are filled with 0, whatever the padding token is: nothing reads outside the mask
    return replace(old, **{f.name: merged(getattr(old, f.name), getattr(new, f.name)) for f in fields(Rollout)})


def loss_mask(rollout: Rollout, mask_truncated: bool) -> Tensor:
    """The tokens to train on, `[N, C]`; none of a completion without an end token when `mask_truncated`.

    TRL's `mask_truncated_completions`, DAPO's overlong filtering (arXiv 2503.14476, section 3.4).
    """
    return rollout.mask * rollout.finished[:, None] if mask_truncated else rollout.mask
