"""A collated batch of HumanOmni's: prompts with the tower features of their clips."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from erv.policy.humanomni.prompts import AUDIO_ID, IMAGE_ID, VIDEO_ID


@dataclass(frozen=True)
class HumanOmniBatch:
    """Prompts (and SFT targets), right-padded, with the tower features of their clips (see `erv.policy.base.PolicyBatch`)."""

    input_ids: Tensor
    """`[B, L]`; VIDEO_ID, AUDIO_ID or IMAGE_ID (negative) where media go, one placeholder per modality."""
    attention_mask: Tensor
    """`[B, L]` bool."""
    bert_input_ids: Tensor
    """`[B, Q]`: the question in BERT's tokens, for the gate."""
    bert_attention_mask: Tensor
    """`[B, Q]`."""
    video: Tensor | None = None
    """Vision features `[Bv, T, N, d]` of the rows with a picture placeholder, in order; T frames of N patches."""
    audio: Tensor | None = None
    """Audio features `[Ba, A, d_a]` of the rows with an audio placeholder, in order."""
    labels: Tensor | None = None
    """`[B, L]`, IGNORE_INDEX but for the targets."""
    frames: Tensor | None = None
    """`[Bv]`: frames of each clip where they differ (T is the largest); None where all have T."""

    def to(self, device: torch.device | str) -> HumanOmniBatch:
        """The batch on another device."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(self, **{k: v.to(device) for k, v in values.items() if v is not None})

    @property
    def media_ids(self) -> Tensor:
        """The ids `[B, L]` with 0 at padding, and pictures as videos of one frame."""
        ids = self.input_ids.masked_fill(~self.attention_mask.bool(), 0)
        return ids.masked_fill(ids == IMAGE_ID, VIDEO_ID)

    def check_placeholders(self) -> None:
        """Raise ValueError where placeholders and features do not agree in number."""
        ids = self.media_ids
        for name, placeholder, features in (("video", VIDEO_ID, self.video), ("audio", AUDIO_ID, self.audio)):
            counts = (ids == placeholder).sum(1)
            if int(counts.max()) > 1:
                raise ValueError(f"a prompt holds {int(counts.max())} {name} placeholders; one per sample is the rule")
            expected, given = int(counts.sum()), 0 if features is None else features.shape[0]
            if expected != given:
                raise ValueError(
                    f"{expected} prompts have a placeholder for {name} but features of {given} clips were given; "
                    f"give each placeholder its clip, or leave {name} out of media.modalities"
                )
