"""The work on text: a plain Qwen2, prompts of fixed ids, a reward that any engine can compute from the text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Qwen2Config, Qwen2ForCausalLM

from erv.policy.humanomni.prompts import Prompt
from erv.types import Clip, RewardParts

VOCABULARY = 2000
NEVER = VOCABULARY  # an end token that no model can sample: every completion has the forced length


def qwen2(positions: int) -> Qwen2ForCausalLM:
    """The model of issue 4's measurements with random weights."""
    torch.manual_seed(0)
    return Qwen2ForCausalLM(Qwen2Config(
        vocab_size=VOCABULARY, hidden_size=256, num_hidden_layers=6, num_attention_heads=8, num_key_value_heads=2,
        intermediate_size=768, max_position_embeddings=positions, tie_word_embeddings=False, bos_token_id=None,
        eos_token_id=None, pad_token_id=0,
    ))  # fmt: skip


def prompt_ids(prompts: int, length: int) -> Tensor:
    """Ids `[prompts, length]`, the same for every engine."""
    return torch.randint(1, VOCABULARY, (prompts, length), generator=torch.Generator().manual_seed(0))


def even_share(text: str) -> float:
    """The reward: the share of even ids in a completion, whose text is its ids."""
    ids = [int(word) for word in text.split()]
    return sum(i % 2 == 0 for i in ids) / max(len(ids), 1)


@dataclass(frozen=True)
class Batch:
    """Prompts as erv's policies collate them."""

    ids: Tensor

    def to(self, device: torch.device) -> Batch:
        """The batch on a device."""
        return replace(self, ids=self.ids.to(device))


class TextModel(nn.Module):
    """A decoder as erv.training.grpo takes it: prompts are embedded by `embed`, the rest is `language_model`."""

    def __init__(self, decoder: Qwen2ForCausalLM) -> None:
        super().__init__()
        self.language_model = decoder

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.language_model.device

    def embed(self, batch: Batch) -> tuple[Tensor, Tensor, None]:
        """Embeddings `[B, P, D]` and mask `[B, P]` of prompts without padding."""
        return self.language_model.get_input_embeddings()(batch.ids), torch.ones_like(batch.ids, dtype=torch.bool), None


class TextProcessor:
    """Ids in, ids out as text."""

    eos_ids, pad_id = (NEVER,), 0

    def __init__(self, length: int) -> None:
        self.length = length

    def prompt_of(self, features: Mapping[str, Tensor], modalities: Sequence[str]) -> Prompt:
        """The same prompt for every clip."""
        return self.prompt(modalities)

    def prompt(self, modalities: Sequence[str]) -> Prompt:
        """As many ids as a prompt has; the ids themselves come with the sample."""
        return Prompt((0,) * self.length, "")

    def collate(self, prompts: Sequence[Prompt], features: Sequence[dict[str, Tensor]]) -> Batch:
        """A batch of the samples' own ids."""
        return Batch(torch.stack([sample["ids"] for sample in features]))

    def decode(self, ids: Sequence[int]) -> str:
        """Ids as text."""
        return " ".join(map(str, ids))


@dataclass(frozen=True)
class TextPolicy:
    """A model and its processor, as erv.policy.Policy is."""

    model: TextModel
    processor: TextProcessor


class EvenReward:
    """`even_share` as erv's rewards are called."""

    weights = {"even": 1.0}  # noqa: RUF012

    def __call__(self, texts: Sequence[str], golds: Sequence[str], *_: Any) -> list[RewardParts]:
        """One reward per text."""
        return [RewardParts(value, {"even": value}) for value in map(even_share, texts)]


def samples(ids: Tensor) -> list[tuple[Clip, dict[str, Tensor]]]:
    """Prompts as erv's batches hold clips."""
    return [(Clip(str(i), "", "", "train"), {"ids": row}) for i, row in enumerate(ids)]
