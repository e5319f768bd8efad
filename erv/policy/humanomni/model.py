"""HumanOmni: picture and sound features, mixed by a gate that reads the question, inserted into a Qwen2 prompt.

SigLIP encodes frames, Whisper sound. Three projector branches of the frames are averaged with weights that a BERT embedding
of the question gives (the gate), and take the place of the prompt's placeholders, as the projected sound does.

Spec: policy.md sections 2 to 4. Towers, BERT and the language model are the library's own classes. Left out: the unused
feature compressor of HumanOmni's own repository.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import BertModel, PreTrainedModel, Qwen2ForCausalLM, SiglipVisionModel
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from erv.policy.base import IGNORE_INDEX, Embedded
from erv.policy.humanomni.batch import HumanOmniBatch
from erv.policy.humanomni.config import AUDIO_POOL, PARTS, HumanOmniConfig
from erv.policy.humanomni.projector import VisionProjector
from erv.policy.humanomni.prompts import MEDIA_IDS, VIDEO_ID


class HumanOmni(PreTrainedModel):
    """The model (see `erv.policy.base.PolicyModel`). What is trained is chosen by `set_trainable`; the rest is frozen.

    Shapes: B rows, T frames of N patches, g' * g' video tokens per frame, D width of the language model.
    """

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

    # what is trained

    def set_trainable(self, parts: Sequence[str]) -> HumanOmni:
        """Train exactly `parts`; everything else is frozen and stays in eval mode. ValueError for an unknown part.

        Of a language model with adapters (LoRA) the adapters alone are trained.
        """
        unknown = [part for part in parts if part not in PARTS]
        if unknown:
            raise ValueError(f"policy.train takes {', '.join(PARTS)}; got {', '.join(unknown)}")
        self.trained = tuple(parts)
        for part in PARTS:
            self.get_submodule(part).requires_grad_(part in parts)
        if self.adapted:
            for name, parameter in self.language_model.named_parameters():
                parameter.requires_grad_("language_model" in parts and "lora_" in name)
        return self.train(self.training)

    def widen_trained(self) -> HumanOmni:
        """Convert the trained weights to fp32: bf16 would round away an update below 1/512 of the weight, as most are in RL."""
        for parameter in self.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
        return self

    @property
    def adapted(self) -> bool:
        """Whether the language model has LoRA adapters."""
        return bool(getattr(self.language_model, "_hf_peft_config_loaded", False))

    def train(self, mode: bool = True) -> HumanOmni:
        """Training mode for the trained parts only: dropout in a frozen tower would change its features."""
        super().train(mode)
        for part in PARTS:
            self.get_submodule(part).train(mode and part in self.trained)
        return self

    def part_sizes(self) -> dict[str, tuple[int, int]]:
        """(Parameters, trained parameters) of each part."""
        parameters = {part: list(self.get_submodule(part).parameters()) for part in PARTS}
        return {
            part: (sum(p.numel() for p in weights), sum(p.numel() for p in weights if p.requires_grad))
            for part, weights in parameters.items()
        }

    # towers

    def towers(self) -> dict[str, nn.Module]:
        """The towers by the name of their part."""
        return {"vision_tower": self.vision_tower, "audio_tower": self.audio_tower}

    def tower_state(self) -> dict[str, Tensor]:
        """The towers' weights under their names in the model."""
        return {
            f"{name}.{key}": value for name, tower in self.towers().items() for key, value in tower.state_dict().items()
        }

    def encode(self, media: Sequence[Mapping[str, Tensor]], batch_size: int | None = None) -> list[dict[str, Tensor]]:
        """Tower features {"video": `[T, N, d]`, "audio": `[A, d_a]`} of what `Processor.tensors` returned for each clip.

        With `batch_size` the towers always see that many clips, the last one repeated to fill up: then a clip's features do
        not depend, to the last bit, on the clips beside it. A gradient flows into a tower that is trained.
        """
        encoders = {"video": self.encode_video, "audio": self.encode_audio}
        device = self.vision_tower.device  # the model's own may differ: a sharded model's other parts are placed later
        features: list[dict[str, Tensor]] = [{} for _ in media]
        for name, encoder in encoders.items():
            rows = [i for i, row in enumerate(media) if name in row]
            size = batch_size or max(len(rows), 1)
            for start in range(0, len(rows), size):
                batch = rows[start : start + size]
                filled = [*batch, *batch[-1:] * (size - len(batch))]
                encoded = encoder(torch.stack([media[i][name] for i in filled]).to(device))
                for i, value in zip(batch, encoded, strict=False):
                    features[i][name] = value
        return features

    def encode_video(self, frames: Tensor) -> Tensor:
        """Normalised frames `[B, T, 3, S, S]` -> features `[B, T, N, d]` of the selected SigLIP layer.

        Layers behind the selected one are not run; no final norm, as in the released code.
        """
        tower, selected = self.vision_tower, self.config.mm_vision_select_layer
        layers = tower.encoder.layers
        depth = selected if selected >= 0 else len(layers) + 1 + selected  # hidden_states[0] are the embeddings
        with torch.set_grad_enabled(torch.is_grad_enabled() and "vision_tower" in self.trained):
            states = tower.embeddings(frames.flatten(0, 1).to(tower.dtype))
            for layer in layers[:depth]:
                states = layer(states, None)
        return states.reshape(*frames.shape[:2], *states.shape[1:])

    def encode_audio(self, mel: Tensor) -> Tensor:
        """Log-mel `[B, M, L]` -> features `[B, A, d_a]`: Whisper's encoder, averaged over 3 positions."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and "audio_tower" in self.trained):
            states = self.audio_tower(mel.to(self.audio_tower.dtype)).last_hidden_state
            return F.avg_pool1d(states.transpose(1, 2), AUDIO_POOL, AUDIO_POOL).transpose(1, 2)

    # projection to the language model

    def gate(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Weights `[B, 3]` in fp32 of the video, body and face branch, from the question in BERT's tokens `[B, Q]`."""
        limit = self.config.bert_config.max_position_embeddings
        if input_ids.shape[1] > limit:
            raise ValueError(f"the question takes {input_ids.shape[1]} BERT tokens, BERT reads {limit}; shorten it")
        # most questions of a batch are the same text: each distinct one is encoded once
        questions, inverse = torch.unique(torch.cat([input_ids, attention_mask.long()], 1), dim=0, return_inverse=True)
        ids, mask = questions.chunk(2, dim=1)
        with torch.set_grad_enabled(torch.is_grad_enabled() and "bert_model" in self.trained):
            first = self.bert_model(input_ids=ids, attention_mask=mask).last_hidden_state[:, 0]
        return F.softmax(self.bert_gate(first.to(_dtype(self.bert_gate))), dim=-1, dtype=torch.float32)[inverse]

    def fuse(self, video: Tensor, weights: Tensor) -> Tensor:
        """Tower features `[B, T, N, d]` and branch weights `[B, 3]` -> video tokens `[B, T * g' * g', D]`.

        A frame's tokens depend on that frame and the one before, so frames that only pad a shorter clip change nothing.
        """
        branches = torch.stack(self.mm_projector(video.to(_dtype(self.mm_projector))), dim=1)
        return (branches * weights[:, :, None, None].to(branches.dtype)).sum(1)

    def media(self, batch: HumanOmniBatch) -> dict[str, Tensor]:
        """The tokens that replace placeholders: {"video": `[Bv, T * g' * g', D]`, "audio": `[Ba, A, D]`}."""
        batch.check_placeholders()
        media = {}
        if batch.video is not None:
            rows = (batch.media_ids == VIDEO_ID).any(1)
            weights = self.gate(batch.bert_input_ids[rows], batch.bert_attention_mask[rows])
            media["video"] = self.fuse(batch.video, weights)
        if batch.audio is not None:
            media["audio"] = self.audio_projector(batch.audio.to(_dtype(self.audio_projector)))
        return media

    def embed(self, batch: HumanOmniBatch, media: dict[str, Tensor] | None = None) -> Embedded:
        """Insert media tokens into the prompts: embeddings `[B, P, D]`, mask `[B, P]` and labels, right-padded.

        `media`: what `self.media(batch)` returned, to save a second pass.
        """
        media = self.media(batch) if media is None else media
        ids, lengths = batch.media_ids, batch.attention_mask.long()  # lengths: positions that each prompt token takes
        for name, tokens in media.items():
            placeholder = ids == MEDIA_IDS[name]
            if name == "video" and batch.frames is not None and batch.video is not None:
                tokens_per_frame = tokens.shape[1] // batch.video.shape[1]
                lengths = lengths.masked_scatter(placeholder, batch.frames * tokens_per_frame)
            else:
                lengths = lengths.masked_fill(placeholder, tokens.shape[1])
        return self._insert(ids, batch.labels, media, lengths)

    def _insert(self, ids: Tensor, labels: Tensor | None, media: dict[str, Tensor], lengths: Tensor) -> Embedded:
        """Lay out token embeddings and media tokens; `lengths` `[B, L]` is how many positions each prompt token takes.

        All rows at once, without a loop: the real positions of the batch form one list of M entries, each of which knows the
        prompt token it comes from (`source`), its row, its column, and its offset within that token's media.
        """
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
        row_start = totals.cumsum(0) - totals
        column = torch.arange(source.numel(), device=ids.device) - row_start[row]
        offset = column - starts.flatten()[source]
        token = ids.flatten()[source]
        values = self.language_model.get_input_embeddings()(token.clamp(min=0))  # [M, D]; placeholders are negative
        for name, tokens in media.items():
            entries = token == MEDIA_IDS[name]
            media_row = (ids == MEDIA_IDS[name]).any(1).long().cumsum(0) - 1  # row of the batch -> row of `tokens`
            inserted = tokens[media_row[row[entries]], offset[entries]].to(values.dtype)
            values = values.index_put((entries.nonzero()[:, 0],), inserted)
        embeds = values.new_zeros(ids.shape[0], longest, values.shape[-1]).index_put((row, column), values)
        mask = torch.arange(longest, device=ids.device)[None] < totals[:, None]
        if labels is None:
            return Embedded(embeds, mask, None)
        entry_labels = torch.where(token < 0, IGNORE_INDEX, labels.flatten()[source])
        unlabelled = torch.full_like(mask, IGNORE_INDEX, dtype=torch.long)
        return Embedded(embeds, mask, unlabelled.index_put((row, column), entry_labels))

    # the library's interface, for comparing with other code

    def forward(self, batch: HumanOmniBatch, **kwargs: Any) -> CausalLMOutputWithPast:
        """Logits `[B, P, V]` and, with labels, the mean token cross-entropy in fp32."""
        embeds, mask, labels = self.embed(batch)
        return self.language_model(inputs_embeds=embeds, attention_mask=mask.long(), labels=labels, **kwargs)

    @torch.no_grad()
    def generate(self, batch: HumanOmniBatch, **kwargs: Any) -> Tensor:
        """New token ids `[B, C]` by the library's own `generate`, under the checkpoint's generation config.

        `kwargs` are the library's. GRPO and evaluation use `erv.engine.generate`; this is for comparing with other code.
        """
        embeds, mask, _ = self.embed(batch)
        size = mask.shape[1]
        # the library continues a row at its right end: move the padding to the left
        order = (torch.arange(size, device=mask.device)[None] - (size - mask.sum(1, keepdim=True))) % size
        embeds = embeds.gather(1, order[..., None].expand_as(embeds))
        return self.language_model.generate(inputs_embeds=embeds, attention_mask=mask.gather(1, order).long(), **kwargs)


def _dtype(module: nn.Module) -> torch.dtype:
    return next(module.parameters()).dtype
