"""Prompts: what stands around the media and the question, and the ids that mark where media go.

Spec: policy.md sections 4 and 5. The released code writes the prompt, reads the question into BERT and shapes pictures in
another way at each stage (original-defects.md 10-14); `paper` repeats that, `consistent` uses the way of its inference,
with pictures padded as they were in training, everywhere.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

IMAGE_ID, VIDEO_ID, AUDIO_ID = -200, -201, -202
MEDIA_IDS = {"video": VIDEO_ID, "audio": AUDIO_ID}
PLACEHOLDERS = {"<image>": IMAGE_ID, "<video>": VIDEO_ID, "<audio>": AUDIO_ID}
QUESTION = (
    "As an emotional recognition expert; throughout the video, which emotion conveyed by the characters is the most "
    "obvious to you?  Output the thinking process in <think> </think> and final emotion in <answer> </answer> tags."
)
Preprocessing = Literal["consistent", "paper"]
Stage = Literal["sft", "grpo", "inference"]
PREPROCESSING: tuple[Preprocessing, ...] = ("consistent", "paper")
STAGES: tuple[Stage, ...] = ("sft", "grpo", "inference")
_WRAPPED = {
    "image": "<im_start><image><im_end>\n",
    "video": "<vi_start><video><vi_end>\n",
    "audio": "<au_start><audio><au_end>\n",
}
# Special tokens of the foreign template in the released GRPO, which a tokenizer for it must know.
FOREIGN_TOKENS = ("<|vision_start|>", "<|vision_end|>", "<|video_pad|>")


@dataclass(frozen=True)
class Prompt:
    """`ids` of the chat prompt, negative where media go, and the text that BERT reads for the gate."""

    ids: tuple[int, ...]
    bert: str


@dataclass(frozen=True)
class Style:
    """How one stage writes prompts and shapes pictures.

    `aspect`: "pad" centres a picture on a grey square, "squash" stretches it. `gap` stands between picture, sound and the
    question where there are both. `before` stands before a video. `system` replaces the chat template's own system
    line. `bert_wrapped`: BERT reads the media tags too, as the released SFT has it.
    """

    aspect: Literal["pad", "squash"] = "pad"
    gap: str = ""
    before: str = ""
    system: str | None = None
    bert_wrapped: bool = False

    def content(self, modalities: Sequence[str], question: str) -> str:
        """The user's message: media in the order picture, sound, then the question."""
        unknown = [m for m in modalities if m not in _WRAPPED]
        if unknown:
            raise ValueError(f"modalities are some of {', '.join(_WRAPPED)}; got {', '.join(unknown)}")
        media = "".join(text for name, text in _WRAPPED.items() if name in modalities)
        both = "audio" in modalities and len(modalities) > 1
        return (self.before if "video" in modalities else "") + media + (self.gap if both else "") + question

    def bert_text(self, modalities: Sequence[str], question: str) -> str:
        """What BERT reads."""
        if not self.bert_wrapped:
            return question
        return self.content(modalities, question).replace("<video>", "").replace("\n", "")


STYLES: dict[Preprocessing, dict[Stage, Style]] = {
    "consistent": dict.fromkeys(STAGES, Style()),
    "paper": {
        "sft": Style(gap="\n\n", bert_wrapped=True),
        "grpo": Style(before="<|vision_start|><|video_pad|><|vision_end|>", system="You are a helpful assistant."),
        "inference": Style(aspect="squash"),
    },
}


def split_ids(text: str, tokenize: Callable[[str], list[int]]) -> list[int]:
    """Token ids of `text` with the negative ids of its placeholders.

    Each piece between placeholders is tokenised by itself, as the public checkpoints were trained.
    """
    ids: list[int] = []
    for piece in re.split(f"({'|'.join(PLACEHOLDERS)})", text):
        ids += [PLACEHOLDERS[piece]] if piece in PLACEHOLDERS else tokenize(piece) if piece else []
    return ids
