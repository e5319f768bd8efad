"""Log-probs of sampled completions, with the prompt of a group run once.

Trunk tokens fall from G (P + C) to P + G C per prompt; loss and gradients are those of the plain computation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from erv.engine.layers import is_known, left_padded, positions, trunk_and_head
from erv.engine.shared_prefix import stream_states
from erv.engine.token_logprobs import token_logps


class CompletionLogps(NamedTuple):
    """logps `[N, C]` fp32, 0 outside the mask; entropy `[N, C]` of the next-token distribution, no grad, or None."""

    logps: Tensor
    entropy: Tensor | None


def completion_logps(
    decoder: PreTrainedModel,
    prompt_embeds: Tensor,
    prompt_mask: Tensor,
    tokens: Tensor,
    mask: Tensor,
    group_size: int,
    temperature: float = 1.0,
    with_entropy: bool = False,
) -> CompletionLogps:
    """Log-probs of `tokens` `[N, C]` (N = B * group_size, prompt-major), differentiable in weights and prompt.

    prompt_embeds `[B, P, D]` and prompt_mask `[B, P]`, padded on either side; mask `[N, C]`, 1 for real tokens, which
    come first in a row. A row of the trunk is [prompt | c_1 | ... | c_G] with positions that restart after the prompt.
    The first token of a completion is predicted at the prompt's last position, the last one predicts nothing and is not
    run; only positions that predict a real token are projected to the vocabulary.
    """
    _check(prompt_embeds, prompt_mask, tokens, mask, group_size)
    _check_dropout(decoder)
    trunk, head = trunk_and_head(decoder)
    batch, _, dim = prompt_embeds.shape
    real = mask.bool()
    length = max(int(real.sum(1).max()) - 1, 0)  # the longest completion, without its last token
    fed = tokens[:, :length].masked_fill(~real[:, :length], 0)
    embeds = decoder.get_input_embeddings()(fed).to(prompt_embeds.dtype)
    if is_known(decoder):
        own = embeds.view(batch, group_size * length, dim)
        states = stream_states(trunk, prompt_embeds, prompt_mask, own, group_size)
        first = states[:, :1, None].expand(batch, group_size, 1, dim)
        states = torch.cat([first, states[:, 1:].view(batch, group_size, length, dim)], dim=2).flatten(0, 1)
    else:
        states = _states_apart(trunk, prompt_embeds, prompt_mask, embeds, real[:, :length], group_size)
    return _project(states, head, tokens, real, temperature, with_entropy)


def _states_apart(
    trunk: nn.Module, prompt: Tensor, prompt_mask: Tensor, embeds: Tensor, real: Tensor, group_size: int
) -> Tensor:
    """Hidden states `[N, 1 + C, D]` that predict completions, every row with a prompt of its own."""
    prompt, prompt_mask = (t.repeat_interleave(group_size, 0) for t in left_padded(prompt, prompt_mask.bool()))
    full = torch.cat([prompt_mask, real], dim=1)
    hidden: Tensor = trunk(
        inputs_embeds=torch.cat([prompt, embeds], dim=1), attention_mask=full.long(), position_ids=positions(full),
        use_cache=False,
    ).last_hidden_state  # fmt: skip
    return hidden[:, prompt.shape[1] - 1 :]


def completion_logps_plain(
    decoder: PreTrainedModel,
    prompt_embeds: Tensor,
    prompt_mask: Tensor,
    tokens: Tensor,
    mask: Tensor,
    group_size: int,
    temperature: float = 1.0,
) -> Tensor:
    """The same log-probs `[N, C]` the long way: prompt repeated per completion, logits everywhere. For checking."""
    prompt, prompt_rows = (t.repeat_interleave(group_size, 0) for t in left_padded(prompt_embeds, prompt_mask))
    embeds = torch.cat([prompt, decoder.get_input_embeddings()(tokens).to(prompt.dtype)], dim=1)
    full = torch.cat([prompt_rows.long(), mask.long()], dim=1)
    logits = decoder(inputs_embeds=embeds, attention_mask=full, position_ids=positions(full), use_cache=False).logits
    predictions = logits[:, prompt.shape[1] - 1 : -1]
    predictions = predictions.to(torch.promote_types(predictions.dtype, torch.float32)) / temperature
    # not log_softmax: on a CPU its sum over 49,000 fp32 terms is off by 1.6e-5, which gradients show (logsumexp: 2e-6)
    chosen = predictions.gather(2, tokens[..., None]).squeeze(2)
    return (chosen - predictions.logsumexp(-1)) * mask


def micro_batches(
    prompt_lengths: Sequence[int], completion_lengths: Sequence[int], group_size: int, token_budget: int
) -> list[list[int]]:
    """Cut a step into micro-batches of whole groups: lists of prompt indices whose padded rows fit `token_budget`.

    A micro-batch of b prompts costs b * (longest prompt + group_size * longest completion) trunk tokens. Groups of
    similar length go together; a group that exceeds the budget alone gets a micro-batch of its own.
    """
    if len(completion_lengths) != len(prompt_lengths) * group_size:
        raise ValueError(
            f"every prompt needs group_size={group_size} completions; got {len(prompt_lengths)} prompts and "
            f"{len(completion_lengths)} completions"
        )
    if token_budget < 1:
        raise ValueError(f"token_budget must be at least 1; got {token_budget}")
    longest = [max(completion_lengths[b * group_size : (b + 1) * group_size]) for b in range(len(prompt_lengths))]
    cuts: list[list[int]] = []
    prompt = completion = 0
    for b in sorted(range(len(prompt_lengths)), key=lambda b: longest[b], reverse=True):
        prompt, completion = max(prompt, prompt_lengths[b]), max(completion, longest[b])
        if not cuts or (len(cuts[-1]) + 1) * (prompt + group_size * completion) > token_budget:
            cuts.append([])
            prompt, completion = prompt_lengths[b], longest[b]
        cuts[-1].append(b)
    return cuts


def _project(
    states: Tensor, head: Tensor, tokens: Tensor, real: Tensor, temperature: float, with_entropy: bool
) -> CompletionLogps:
    length = states.shape[1]
    chosen = real[:, :length]
    packed, entropy = token_logps(states[chosen], head, tokens[:, :length][chosen], temperature, with_entropy)
    index = real.nonzero(as_tuple=True)
    spread = torch.zeros(real.shape, dtype=torch.float32, device=real.device)
    logps = spread.index_put(index, packed)
    return CompletionLogps(logps, None if entropy is None else spread.index_put(index, entropy))


def _check(embeds: Tensor, prompt_mask: Tensor, tokens: Tensor, mask: Tensor, group_size: int) -> None:
    if embeds.shape[:2] != prompt_mask.shape or tokens.shape != mask.shape:
        raise ValueError(
            f"masks must match their tensors; got prompt {tuple(embeds.shape)} with mask {tuple(prompt_mask.shape)}, "
            f"tokens {tuple(tokens.shape)} with mask {tuple(mask.shape)}"
        )
    if tokens.shape[0] != embeds.shape[0] * group_size:
        raise ValueError(
            f"tokens must have B * group_size rows; got {tokens.shape[0]} rows for B={embeds.shape[0]}, "
            f"group_size={group_size}"
        )
    if not bool(prompt_mask.bool().any(1).all()):
        raise ValueError("every prompt needs at least one real position; got a prompt_mask row of zeros")


def _check_dropout(decoder: PreTrainedModel) -> None:
    dropout = getattr(decoder.config.get_text_config(decoder=True), "attention_dropout", 0.0)
    if decoder.training and dropout:
        raise ValueError(
            f"GRPO compares log-probs of two passes; set the decoder's attention_dropout to 0, got {dropout}"
        )
