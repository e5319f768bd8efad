"""HumanOmni's prompts: what is written around media and question at each stage, and the ids that mark where media go.

Spec: policy.md sections 4 and 5. The released code writes the prompt, the text for BERT and the pictures in another way at
each stage (original-defects.md 10-14). Preprocessing "paper" repeats that; "consistent" uses the way of its inference
everywhere, but with pictures padded, as they were in training.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from erv.policy.base import STAGES, Preprocessing, Stage

# Ids of placeholders in `input_ids`, as in the released code: negative, so that no token has them.
IMAGE_ID, VIDEO_ID, AUDIO_ID = -200, -201, -202
MEDIA_IDS = {"video": VIDEO_ID, "audio": AUDIO_ID}
PLACEHOLDERS = {"<image>": IMAGE_ID, "<video>": VIDEO_ID, "<audio>": AUDIO_ID}
# R1-Omni's question; the two spaces before "Output" are its own.
QUESTION = (
    "As an emotional recognition expert; throughout the video, which emotion conveyed by the characters is the most "
    "obvious to you?  Output the thinking process in <think> </think> and final emotion in <answer> </answer> tags."
)
# The text around each placeholder; ordinary text, several tokens each.
_WRAPPED = {
    "image": "<im_start><image><im_end>\n",
    "video": "<vi_start><video><vi_end>\n",
    "audio": "<au_start><audio><au_end>\n",
}
# Special tokens of Qwen2-VL's template, with which the released GRPO writes prompts; a tokenizer for "paper" must have them.
FOREIGN_TOKENS = ("<|vision_start|>", "<|vision_end|>", "<|video_pad|>")


@dataclass(frozen=True)
class Prompt:
    """A chat prompt in tokens, and the question for BERT."""

    ids: tuple[int, ...]
    """Token ids, with the negative ids of placeholders where media go."""
    bert: str
    """The text that BERT encodes for the gate."""


@dataclass(frozen=True)
class Style:
    """How one stage writes prompts and shapes pictures."""

    aspect: Literal["pad", "squash"] = "pad"
    """"pad" centres a picture on a grey square, "squash" stretches it to one."""
    gap: str = ""
    """Text between the media and the question where a clip has picture and sound."""
    before: str = ""
    """Text before the media where there is a picture."""
    system: str | None = None
    """Replaces the system message of the tokenizer's chat template."""
    bert_wrapped: bool = False
    """BERT reads the tags around the media as well, as in the released SFT."""

    def content(self, modalities: Sequence[str], question: str) -> str:
        """The user's message: the media in the order picture, sound, then the question."""
        unknown = [m for m in modalities if m not in _WRAPPED]
        if unknown:
            raise ValueError(f"modalities are some of {', '.join(_WRAPPED)}; got {', '.join(unknown)}")
        media = "".join(text for name, text in _WRAPPED.items() if name in modalities)
        both = "audio" in modalities and len(modalities) > 1
        return (self.before if "video" in modalities else "") + media + (self.gap if both else "") + question

    def bert_text(self, modalities: Sequence[str], question: str) -> str:
        """The text that BERT encodes."""
        if not self.bert_wrapped:
            return question
        # the released SFT leaves <audio> and the wrapping tags in (policy.md section 5)
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
    """Tokenise `text`, with the negative ids of its placeholders.

    Each piece between placeholders is tokenised by itself, as the public checkpoints were trained: across a placeholder's
    place, BPE could merge characters otherwise.
    """
    ids: list[int] = []
    for piece in re.split(f"({'|'.join(PLACEHOLDERS)})", text):
        ids += [PLACEHOLDERS[piece]] if piece in PLACEHOLDERS else tokenize(piece) if piece else []
    return ids
