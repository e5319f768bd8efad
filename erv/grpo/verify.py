"""The self-check of a first step: shared-prefix gradients beside those of the plain computation."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from transformers import PreTrainedModel

from erv.grpo.logprobs import completion_logps, completion_logps_plain


def verify_shared_prefix(
    decoder: PreTrainedModel,
    prompt_embeds: Tensor,
    prompt_mask: Tensor,
    tokens: Tensor,
    mask: Tensor,
    group_size: int,
    tolerance: float = 1e-5,
) -> float:
    """Compare gradients of the shared-prefix and the plain log-probs; raise where they differ.

    Returns max |difference| / max |gradient| over all trainable weights and the prompt embeddings, of a random linear
    function of the log-probs; NaN where the plain gradients are zero or not finite, which says nothing.
    """
    batch = (prompt_mask, tokens, mask, group_size)
    prompt = prompt_embeds.detach().requires_grad_()
    weights = [p for p in decoder.parameters() if p.requires_grad]
    probe = torch.rand(tokens.shape, generator=torch.Generator().manual_seed(0)).to(tokens.device)

    def gradients(logps: Callable[[], Tensor]) -> list[Tensor]:
        found = torch.autograd.grad((logps() * mask * probe).sum(), [prompt, *weights], materialize_grads=True)
        return [g.float() for g in found]

    training = decoder.training
    decoder.eval()  # two passes do not share their dropout
    try:
        plain = gradients(lambda: completion_logps_plain(decoder, prompt, *batch))
        largest = max(float(g.abs().max()) for g in plain)
        if largest == 0 or not math.isfinite(largest):
            return math.nan
        shared = gradients(lambda: completion_logps(decoder, prompt, *batch).logps)
    finally:
        decoder.train(training)
    difference = max(float((a - b).abs().max()) for a, b in zip(plain, shared, strict=True)) / largest
    if not difference <= tolerance:
        raise ValueError(
            f"shared-prefix gradients must equal the plain ones within {tolerance} of the largest; they differ by "
            f"{difference:.2e}: this decoder's layers are not what layers.py makes of them; take their kind out of its KNOWN"
        )
    return difference


def first_groups(
    prompt_embeds: Tensor, prompt_mask: Tensor, tokens: Tensor, mask: Tensor, group_size: int, at_most: int = 2
) -> tuple[Tensor, Tensor, Tensor, Tensor, int]:
    """The first prompts with the first of their completions, `at_most` of each: enough for a check, and cheap."""
    prompts, few = min(at_most, len(prompt_embeds)), min(at_most, group_size)
    rows = [b * group_size + g for b in range(prompts) for g in range(few)]
    return prompt_embeds[:prompts], prompt_mask[:prompts], tokens[rows], mask[rows], few


def prefix_tolerance(embeds: Tensor) -> float:
    """How far gradients of equal computations may part: rounding of the precision in use."""
    return 1e-4 if embeds.dtype == torch.float32 and not torch.is_autocast_enabled(embeds.device.type) else 5e-2
