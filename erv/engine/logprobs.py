"""Log-probs of sampled completions for the GRPO loss, with the prompt of a group run once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from erv.engine.layers import pad_left, position_ids, supports_shared_prefix, trunk_and_head
from erv.engine.shared_prefix import shared_prefix_states
from erv.engine.token_logprobs import token_logps


class CompletionLogps(NamedTuple):
    """Log-probs of completions, and the entropies of the distributions that they come from."""

    logps: Tensor
    """`[N, C]` in fp32, 0 outside the mask."""
    entropy: Tensor | None
    """`[N, C]` entropies of the next-token distributions, without gradient, 0 outside the mask; None if not asked for."""


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
    """Compute log pi(token | prompt, tokens before it) of completions, differentiable in the weights and the prompt.

    A supported decoder runs the prompt once per group (see `erv.engine.shared_prefix`), P + G C trunk tokens instead of
    G (P + C). A completion's first token is predicted at the prompt's last position; its last token predicts nothing and
    is not run. Only hidden states that predict a real token are projected to the vocabulary. Loss and gradients are those
    of the plain computation (`completion_logps_plain`) up to rounding.

    Args:
        decoder: the language model.
        prompt_embeds: `[B, P, D]`.
        prompt_mask: `[B, P]`, padding on either side.
        tokens: `[N, C]`, N = B * group_size, prompt-major.
        mask: `[N, C]`, 1 for real tokens, which come first in a row; a row may have none.
        group_size: completions per prompt, G.
        temperature: divides the logits; that of the sampling, so that rollout and update use the same distribution.
        with_entropy: compute the entropies as well.
    """
    _check_shapes(prompt_embeds, prompt_mask, tokens, mask, group_size)
    _check_dropout(decoder)
    trunk, head = trunk_and_head(decoder)
    batch, _, width = prompt_embeds.shape
    real = mask.bool()
    length = max(int(real.sum(1).max()) - 1, 0)  # the longest completion, without its last token
    # padding becomes token 0, a row of every embedding table; the padding token need not be one
    inputs = tokens[:, :length].masked_fill(~real[:, :length], 0)
    embeds = decoder.get_input_embeddings()(inputs).to(prompt_embeds.dtype)
    if supports_shared_prefix(decoder):
        completions = embeds.view(batch, group_size * length, width)
        states = shared_prefix_states(trunk, prompt_embeds, prompt_mask, completions, group_size)
        first = states[:, :1, None].expand(batch, group_size, 1, width)  # the prompt's last state, in front of each one
        states = torch.cat([first, states[:, 1:].view(batch, group_size, length, width)], dim=2).flatten(0, 1)
    else:
        states = _separate_row_states(trunk, prompt_embeds, prompt_mask, embeds, real[:, :length], group_size)
    return _project(states, head, tokens, real, temperature, with_entropy)


def _separate_row_states(
    trunk: nn.Module, prompt: Tensor, prompt_mask: Tensor, completions: Tensor, real: Tensor, group_size: int
) -> Tensor:
    """Hidden states `[N, 1 + C, D]` that predict the completions, by the decoder's own forward: a prompt in every row."""
    prompt, prompt_mask = (t.repeat_interleave(group_size, 0) for t in pad_left(prompt, prompt_mask.bool()))
    mask = torch.cat([prompt_mask, real], dim=1)
    hidden: Tensor = trunk(
        inputs_embeds=torch.cat([prompt, completions], dim=1),
        attention_mask=mask.long(),
        position_ids=position_ids(mask),
        use_cache=False,
    ).last_hidden_state
    return hidden[:, prompt.shape[1] - 1 :]


def _project(
    states: Tensor, head: Tensor, tokens: Tensor, real: Tensor, temperature: float, with_entropy: bool
) -> CompletionLogps:
    """Log-probs of the real tokens from the states `[N, 1 + C', D]` that predict them; padding is not projected."""
    length = states.shape[1]
    predicts = real[:, :length]
    logps, entropy = token_logps(states[predicts], head, tokens[:, :length][predicts], temperature, with_entropy)
    index = real.nonzero(as_tuple=True)
    zeros = torch.zeros(real.shape, dtype=torch.float32, device=real.device)
    return CompletionLogps(zeros.index_put(index, logps), None if entropy is None else zeros.index_put(index, entropy))


def completion_logps_plain(
    decoder: PreTrainedModel,
    prompt_embeds: Tensor,
    prompt_mask: Tensor,
    tokens: Tensor,
    mask: Tensor,
    group_size: int,
    temperature: float = 1.0,
) -> Tensor:
    """Compute the same log-probs `[N, C]` by the decoder's own forward pass: prompt per completion, all logits.

    The reference that the self-check and the tests compare `completion_logps` with; arguments as there.
    """
    prompt, prompt_rows = (t.repeat_interleave(group_size, 0) for t in pad_left(prompt_embeds, prompt_mask))
    embeds = torch.cat([prompt, decoder.get_input_embeddings()(tokens).to(prompt.dtype)], dim=1)
    full = torch.cat([prompt_rows.long(), mask.long()], dim=1)
    logits = decoder(inputs_embeds=embeds, attention_mask=full, position_ids=position_ids(full), use_cache=False).logits
    predictions = logits[:, prompt.shape[1] - 1 : -1]
    predictions = predictions.to(torch.promote_types(predictions.dtype, torch.float32)) / temperature
    # not log_softmax: on a CPU its sum over 49,000 fp32 terms is off by 1.6e-5, which gradients show (logsumexp: 2e-6)
    token_logits = predictions.gather(2, tokens[..., None]).squeeze(2)
    return (token_logits - predictions.logsumexp(-1)) * mask


def micro_batches(
    prompt_lengths: Sequence[int], completion_lengths: Sequence[int], group_size: int, token_budget: int
) -> list[list[int]]:
    """Divide a step into micro-batches of whole groups whose padded trunk tokens fit `token_budget`.

    A micro-batch of b prompts costs b * (longest prompt + group_size * longest completion) tokens. Groups are taken by
    falling length of their longest completion, so that those of similar length share a micro-batch and little is padding.
    A group that exceeds the budget alone gets a micro-batch of its own.

    Args:
        prompt_lengths: positions of each prompt, B values.
        completion_lengths: tokens of each completion, B * group_size values, prompt-major.
        group_size: completions per prompt.
        token_budget: most trunk tokens of a micro-batch, padding included.

    Returns:
        Lists of prompt indices.
    """
    if len(completion_lengths) != len(prompt_lengths) * group_size:
        raise ValueError(
            f"every prompt needs group_size={group_size} completions; got {len(prompt_lengths)} prompts and "
            f"{len(completion_lengths)} completions"
        )
    if token_budget < 1:
        raise ValueError(f"token_budget must be at least 1; got {token_budget}")
    longest = [max(completion_lengths[b * group_size : (b + 1) * group_size]) for b in range(len(prompt_lengths))]
    batches: list[list[int]] = []
    prompt = completion = 0  # the longest ones of the last micro-batch
    for b in sorted(range(len(prompt_lengths)), key=lambda b: longest[b], reverse=True):
        prompt, completion = max(prompt, prompt_lengths[b]), max(completion, longest[b])
        if not batches or (len(batches[-1]) + 1) * (prompt + group_size * completion) > token_budget:
            batches.append([])
            prompt, completion = prompt_lengths[b], longest[b]
        batches[-1].append(b)
    return batches


def _check_shapes(embeds: Tensor, prompt_mask: Tensor, tokens: Tensor, mask: Tensor, group_size: int) -> None:
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
