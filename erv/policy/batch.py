"""A batch of prompts with the tower features of their clips."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from erv.policy.humanomni.prompts import AUDIO_ID, IMAGE_ID, VIDEO_ID

IGNORE = -100


@dataclass(frozen=True)
class PolicyBatch:
    """Prompts (and SFT targets) with the tower features of their clips, right-padded.

    `input_ids` `[B, L]` holds VIDEO_ID / AUDIO_ID where media go; `attention_mask` `[B, L]` bool; `labels` `[B, L]`;
    `bert_input_ids`, `bert_attention_mask` `[B, Q]`; `video` `[Bv, T, N, d]` and `audio` `[Ba, A, d_a]` hold the tower
    features of the rows that have such a placeholder, in order. `frames` `[Bv]`: the frames of each clip where they
    differ (T is the most of them), None where all have T.
    """

    input_ids: Tensor
    attention_mask: Tensor
    bert_input_ids: Tensor
    bert_attention_mask: Tensor
    video: Tensor | None = None
    audio: Tensor | None = None
    labels: Tensor | None = None
    frames: Tensor | None = None

    def to(self, device: torch.device | str) -> PolicyBatch:
        """The batch on another device."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(self, **{k: v.to(device) for k, v in values.items() if v is not None})

    @property
    def media_ids(self) -> Tensor:
        """The ids `[B, L]` without padding, pictures as videos of one frame."""
        ids = self.input_ids.masked_fill(~self.attention_mask.bool(), 0)
        return ids.masked_fill(ids == IMAGE_ID, VIDEO_ID)

    def check_placeholders(self) -> None:
        """ValueError where placeholders and features do not belong together."""
        ids = self.media_ids
        for name, placeholder, features in (("video", VIDEO_ID, self.video), ("audio", AUDIO_ID, self.audio)):
            counts = (ids == placeholder).sum(1)
            if int(counts.max()) > 1:
                raise ValueError(f"a prompt holds {int(counts.max())} {name} placeholders; one per sample is the rule")
            wanted, given = int(counts.sum()), 0 if features is None else features.shape[0]
            if wanted != given:
                raise ValueError(
                    f"{wanted} prompts have a placeholder for {name} but features of {given} clips were given; "
                    f"give each placeholder its clip, or leave {name} out of media.modalities"
                )
