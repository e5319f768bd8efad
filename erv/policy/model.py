"""HumanOmni: SigLIP frames and Whisper sound, gated by the question's BERT embedding, spliced into a Qwen2 prompt.

Spec: policy.md sections 2 to 4. Towers, BERT and the language model are the library's own classes. Left out: the unused
feature compressor of HumanOmni's own repository.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import BertModel, PreTrainedModel, Qwen2ForCausalLM, SiglipVisionModel
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from erv.policy.config import AUDIO_POOL, PARTS, HumanOmniConfig
from erv.policy.projector import VisionProjector

VIDEO_ID, AUDIO_ID = -201, -202
IGNORE = -100


@dataclass(frozen=True)
class PolicyBatch:
    """Prompts (and SFT targets) with the tower features of their clips, right-padded.

    `input_ids` `[B, L]` holds VIDEO_ID / AUDIO_ID where media go; `attention_mask` `[B, L]` bool; `labels` `[B, L]`;
    `bert_input_ids`, `bert_attention_mask` `[B, Q]`; `video` `[Bv, T, N, d]` and `audio` `[Ba, A, d_a]` hold the rows
    that have such a placeholder, in order.
    """

    input_ids: Tensor
    attention_mask: Tensor
    bert_input_ids: Tensor
    bert_attention_mask: Tensor
    video: Tensor | None = None
    audio: Tensor | None = None
    labels: Tensor | None = None

    def to(self, device: torch.device | str) -> PolicyBatch:
        """The batch on another device."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(self, **{k: v.to(device) for k, v in values.items() if v is not None})


class HumanOmni(PreTrainedModel):
    """The policy. `config.train_parts`-like choices are made by `set_trainable`; all else stays frozen in eval mode."""

    config_class = HumanOmniConfig
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _tied_weights_keys = None

    def __init__(self, config: HumanOmniConfig) -> None:
        super().__init__(config)
        width = config.text_config.hidden_size
        self.language_model = Qwen2ForCausalLM(config.text_config)
        self.vision_tower = SiglipVisionModel(config.vision_config)
        self.audio_tower = WhisperEncoder(config.audio_config)
        self.bert_model = BertModel(config.bert_config)
        gate = config.gate_hidden_size
        self.bert_gate = nn.Sequential(nn.Linear(config.bert_config.hidden_size, gate), nn.GELU(), nn.Linear(gate, 3))
        self.mm_projector = VisionProjector(config.vision_config.hidden_size, width, config.mm_projector_type)
        self.audio_projector = nn.Sequential(
            nn.Linear(config.audio_config.d_model, width), nn.GELU(), nn.Linear(width, width)
        )
        self.trained: tuple[str, ...] = PARTS
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Nothing: the library's models initialise themselves, the rest keeps torch's defaults."""

    def set_trainable(self, parts: tuple[str, ...] | list[str]) -> HumanOmni:
        """Train exactly `parts`; everything else is frozen and stays in eval mode. ValueError for an unknown part."""
        unknown = [part for part in parts if part not in PARTS]
        if unknown:
            raise ValueError(f"policy.train takes {', '.join(PARTS)}; got {', '.join(unknown)}")
        self.trained = tuple(parts)
        for part in PARTS:
            self.get_submodule(part).requires_grad_(part in parts)
        return self.train(self.training)

    def train(self, mode: bool = True) -> HumanOmni:
        """Training mode for trained parts only: dropout in a frozen tower would change its features."""
        super().train(mode)
        for part in PARTS:
            self.get_submodule(part).train(mode and part in self.trained)
        return self

    def part_sizes(self) -> dict[str, int]:
        """Parameters of each part."""
        return {part: sum(p.numel() for p in self.get_submodule(part).parameters()) for part in PARTS}

    def encode_video(self, frames: Tensor) -> Tensor:
        """Normalised frames `[B, T, 3, S, S]` -> features `[B, T, N, d]` of the selected SigLIP layer."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and "vision_tower" in self.trained):
            states = self.vision_tower(frames.flatten(0, 1), output_hidden_states=True).hidden_states
        chosen = states[self.config.mm_vision_select_layer]
        return chosen.reshape(*frames.shape[:2], *chosen.shape[1:])

    def encode_audio(self, mel: Tensor) -> Tensor:
        """Log-mel `[B, M, L]` -> features `[B, A, d_a]`: Whisper's encoder, averaged over 3 positions."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and "audio_tower" in self.trained):
            states = self.audio_tower(mel).last_hidden_state
            return F.avg_pool1d(states.transpose(1, 2), AUDIO_POOL, AUDIO_POOL).transpose(1, 2)

    def gate(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Weights of the video, body and face branch from the question: `[B, Q]` -> `[B, 3]`."""
        # Most questions of a batch are the same text: each distinct one is read once.
        rows, inverse = torch.unique(torch.cat([input_ids, attention_mask.long()], 1), dim=0, return_inverse=True)
        ids, mask = rows.chunk(2, dim=1)
        with torch.set_grad_enabled(torch.is_grad_enabled() and "bert_model" in self.trained):
            first = self.bert_model(input_ids=ids, attention_mask=mask).last_hidden_state[:, 0]
        return F.softmax(self.bert_gate(first), dim=-1)[inverse]

    def fuse(self, video: Tensor, weights: Tensor) -> Tensor:
        """Tower features `[B, T, N, d]` and branch weights `[B, 3]` -> video tokens `[B, T * g' * g', D]`."""
        branches = torch.stack(self.mm_projector(video), dim=1)
        return (branches * weights[:, :, None, None]).sum(1)

    def embed(self, batch: PolicyBatch) -> tuple[Tensor, Tensor, Tensor | None]:
        """Splice media into the prompts: (inputs_embeds `[B, L', D]`, attention_mask `[B, L']` bool, labels or None)."""
        ids, mask = batch.input_ids, batch.attention_mask.bool()
        media = {}
        rows_with_video = ((ids == VIDEO_ID) & mask).any(1)
        if batch.video is not None:
            weights = self.gate(batch.bert_input_ids[rows_with_video], batch.bert_attention_mask[rows_with_video])
            media[VIDEO_ID] = self.fuse(batch.video, weights)
        if batch.audio is not None:
            media[AUDIO_ID] = self.audio_projector(batch.audio)
        _check_placeholders(ids, mask, media)
        lengths = mask.long()
        for placeholder, tokens in media.items():
            lengths = torch.where((ids == placeholder) & mask, tokens.shape[1], lengths)
        return self._splice(batch, media, lengths)

    def _splice(
        self, batch: PolicyBatch, media: dict[int, Tensor], lengths: Tensor
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Place token embeddings and media tokens; `lengths` `[B, L]` is how many positions each prompt token takes."""
        ids = batch.input_ids
        totals = lengths.sum(1)
        longest = int(totals.max())
        limit = self.config.text_config.max_position_embeddings
        if longest > limit:
            raise ValueError(
                f"a prompt takes {longest} positions, the model has {limit}; use fewer frames or a shorter text"
            )
        starts = lengths.cumsum(1) - lengths
        source = torch.repeat_interleave(torch.arange(ids.numel(), device=ids.device), lengths.flatten())
        row = source // ids.shape[1]
        before = totals.cumsum(0) - totals
        column = torch.arange(source.numel(), device=ids.device) - before[row]
        offset = column - starts.flatten()[source]
        token = ids.flatten()[source]
        embedding = self.language_model.get_input_embeddings()
        values = embedding(token.clamp(min=0))
        for placeholder, tokens in media.items():
            here = token == placeholder
            rank = (ids == placeholder).any(1).long().cumsum(0) - 1  # row of the batch -> row of `tokens`
            values = values.index_put((here.nonzero()[:, 0],), tokens[rank[row[here]], offset[here]].to(values.dtype))
        embeds = values.new_zeros(ids.shape[0], longest, values.shape[-1]).index_put((row, column), values)
        mask = torch.arange(longest, device=ids.device)[None] < totals[:, None]
        labels = None
        if batch.labels is not None:
            spliced = torch.where(token < 0, IGNORE, batch.labels.flatten()[source])
            labels = torch.full_like(mask, IGNORE, dtype=torch.long).index_put((row, column), spliced)
        return embeds, mask, labels

    def forward(self, batch: PolicyBatch, **kwargs: Any) -> CausalLMOutputWithPast:
        """Logits `[B, L', V]` and, with labels, the mean token cross-entropy in fp32."""
        embeds, mask, labels = self.embed(batch)
        return self.language_model(inputs_embeds=embeds, attention_mask=mask.long(), labels=labels, **kwargs)


def _check_placeholders(ids: Tensor, mask: Tensor, media: dict[int, Tensor]) -> None:
    for name, placeholder in (("video", VIDEO_ID), ("audio", AUDIO_ID)):
        counts = ((ids == placeholder) & mask).sum(1)
        if int(counts.max()) > 1:
            raise ValueError(f"a prompt holds {int(counts.max())} {name} placeholders; one per sample is the rule")
        wanted, given = int(counts.sum()), media[placeholder].shape[0] if placeholder in media else 0
        if wanted != given:
            raise ValueError(
                f"{wanted} prompts have a {name} placeholder but features of {given} clips were given; "
                f"give each placeholder its clip, or leave {name} out of data.modalities"
            )
