"""The released loop's computation, restated plainly: one prompt at a time, nothing shared between its G samples.

Spec: policy.md section 7 and original-defects.md 15 to 17. A clip is encoded once to sample and once per sample for policy
and reference, 1 + 2G times; log-probs come from logits at every position; generation is the library's own.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from grpo_clock import Clock
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

Encode = Callable[[Any, int], Tensor]  # (model, prompt) -> embeddings [1, P, D], made anew at each call


def run(
    model: Any, prompts: int, encode: Encode, decode: Callable[[list[int]], str], rewards: Callable[[Sequence[str]], list[float]],
    eos: int, group: int, length: int, steps: int, beta: float = 0.04,
) -> Clock:  # fmt: skip
    """`steps` optimiser steps over `prompts` prompts whose gradients add up."""
    clock, reference = Clock(), copy.deepcopy(model).requires_grad_(False).eval()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(trained, 1e-6)
    for _ in range(steps):
        with clock.step():
            for prompt in range(prompts):
                with clock.part("rollout"):
                    tokens = sample(model, encode, prompt, eos, group, length)
                reward = torch.tensor(rewards([decode(row) for row in tokens.tolist()]))
                advantage = (reward - reward.mean()) / (reward.std() + 1e-4)
                with clock.part("forward"):
                    model.train()
                    logps = log_probs(model, encode, prompt, tokens)
                with clock.part("reference"), torch.no_grad():
                    ref = log_probs(reference, encode, prompt, tokens)
                with clock.part("backward"):
                    gap = ref - logps
                    per_token = -(logps - logps.detach()).exp() * advantage[:, None] + beta * (gap.exp() - gap - 1)
                    (per_token.mean(1).mean() / prompts).backward()
            with clock.part("backward"):
                clip_grad_norm_(trained, 1.0)
                optimiser.step()
                optimiser.zero_grad()
    return clock


@torch.no_grad()
def sample(model: Any, encode: Encode, prompt: int, eos: int, group: int, length: int) -> Tensor:
    """G completions `[G, length]` by the library's generate, with the original's top_k 50."""
    model.eval()
    embeds = encode(model, prompt)
    return model.language_model.generate(
        inputs_embeds=embeds, attention_mask=torch.ones(embeds.shape[:2], dtype=torch.long), do_sample=True, top_k=50,
        max_new_tokens=length, num_return_sequences=group, eos_token_id=eos, pad_token_id=0,
    )  # fmt: skip


def log_probs(model: Any, encode: Encode, prompt: int, tokens: Tensor) -> Tensor:
    """Log-probs `[G, C]` of the tokens: every row with a prompt, and an encoding, of its own."""
    embeds = torch.cat([encode(model, prompt) for _ in range(len(tokens))])
    full = torch.cat([embeds, model.language_model.get_input_embeddings()(tokens)], dim=1)
    logits = model.language_model(inputs_embeds=full, use_cache=False).logits
    rows = [row.log_softmax(-1).gather(1, ids[:, None]).squeeze(1)
            for row, ids in zip(logits[:, -tokens.shape[1] - 1 : -1], tokens, strict=True)]  # fmt: skip
    return torch.stack(rows)
