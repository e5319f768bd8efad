"""From a clip and a question to the policy's inputs, and from its tokens to text: one path for SFT, GRPO and evaluation.

Spec: policy.md section 5, without the original's differences between training and inference (original-defects.md 10-14).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerFast, WhisperFeatureExtractor

from erv.media.audio import read_audio
from erv.media.frames import read_frames
from erv.policy.model import AUDIO_ID, IGNORE, VIDEO_ID, PolicyBatch

QUESTION = (
    "As an emotional recognition expert; throughout the video, which emotion conveyed by the characters is the most "
    "obvious to you?  Output the thinking process in <think> </think> and final emotion in <answer> </answer> tags."
)
_WRAPPED = {"video": "<vi_start><video><vi_end>\n", "audio": "<au_start><audio><au_end>\n"}
_PLACEHOLDERS = {"<video>": VIDEO_ID, "<audio>": AUDIO_ID}
RATE = 16000
PAD_COLOUR = (127, 127, 127)


class Processor:
    """Decodes clips, writes prompts and collates batches.

    `image_size` pixels a side, `num_frames` frames a clip, `mel_bins` bins over `audio_seconds` of sound (30 for Whisper);
    `question` is the user's text.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerFast,
        bert_tokenizer: PreTrainedTokenizerFast,
        image_size: int,
        num_frames: int,
        mel_bins: int,
        audio_seconds: float,
        question: str = QUESTION,
    ) -> None:
        self.tokenizer, self.bert_tokenizer = tokenizer, bert_tokenizer
        self.image_size, self.num_frames = image_size, num_frames
        self.mel_bins, self.audio_seconds = mel_bins, audio_seconds
        self.question = question
        self._mel = WhisperFeatureExtractor(feature_size=mel_bins)
        self.eos_ids = [int(tokenizer.eos_token_id)]
        self.pad_id = int(tokenizer.pad_token_id)

    def settings(self) -> dict[str, object]:
        """The plain values that, with the two tokenizers, make this processor again."""
        names = ("image_size", "num_frames", "mel_bins", "audio_seconds", "question")
        return {name: getattr(self, name) for name in names}

    def preprocessing(self) -> str:
        """What happens between the file and the towers, for the tower cache's key."""
        return f"pad siglip {self.image_size} frames {self.num_frames} mel {self.mel_bins} seconds {self.audio_seconds}"

    def load_media(self, path: str, modalities: Sequence[str] = ("video", "audio")) -> dict[str, Tensor]:
        """Decode a clip: {"video": frames `[T, 3, S, S]`, "audio": log-mel `[M, L]`}, without "audio" for a silent file."""
        media: dict[str, Tensor] = {}
        if "video" in modalities:
            media["video"] = self.normalise(read_frames(path, self.num_frames))
        wave = read_audio(path, RATE) if "audio" in modalities else None
        if wave is not None:
            media["audio"] = self.log_mel(wave)
        return media

    def normalise(self, frames: np.ndarray) -> Tensor:
        """uint8 `[T, H, W, 3]` -> `[T, 3, S, S]` in [-1, 1]: centred on a grey square, resized bicubically as SigLIP does."""
        height, width = frames.shape[1:3]
        side = max(height, width)
        size = (self.image_size, self.image_size)
        pictures = []
        for frame in frames:
            canvas = Image.new("RGB", (side, side), PAD_COLOUR)
            canvas.paste(Image.fromarray(frame), ((side - width) // 2, (side - height) // 2))
            pictures.append(np.asarray(canvas.resize(size, Image.Resampling.BICUBIC)))
        values = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float()
        return (values / 255 - 0.5) / 0.5

    def log_mel(self, wave: np.ndarray) -> Tensor:
        """16 kHz mono `[S]` -> Whisper log-mel `[M, L]` of exactly `audio_seconds` (zero-padded or cut)."""
        samples = round(self.audio_seconds * RATE)
        features = self._mel(
            wave, sampling_rate=RATE, max_length=samples, padding="max_length", truncation=True, return_tensors="pt"
        )
        return features["input_features"][0].float()

    def prompt_ids(self, modalities: Sequence[str] = ("video", "audio"), question: str | None = None) -> list[int]:
        """Token ids of the chat prompt, with VIDEO_ID / AUDIO_ID where the media of `modalities` go."""
        content = "".join(_WRAPPED[m] for m in ("video", "audio") if m in modalities) + (question or self.question)
        chat = [{"role": "user", "content": content}]
        text = self.tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        ids: list[int] = []
        # Each piece between placeholders is tokenised by itself, as the public checkpoints were trained.
        for piece in re.split(r"(<video>|<audio>)", text):
            ids += [_PLACEHOLDERS[piece]] if piece in _PLACEHOLDERS else self._ids(piece)
        return ids

    def target_ids(self, text: str) -> list[int]:
        """Token ids of an answer: text, end token, line end."""
        return [*self._ids(text), *self.eos_ids, *self._ids("\n")]

    def _ids(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def collate(
        self,
        prompts: Sequence[Sequence[int]],
        features: Sequence[dict[str, Tensor]],
        targets: Sequence[Sequence[int]] | None = None,
        questions: Sequence[str] | None = None,
    ) -> PolicyBatch:
        """One batch of prompts (with `targets` appended, and labels on those only), right-padded.

        `features` are the tower features of each row's clip; a modality is used where the prompt has its placeholder.
        """
        targets = targets or [[]] * len(prompts)
        rows = [torch.tensor([*p, *t]) for p, t in zip(prompts, targets, strict=True)]
        labels = [torch.tensor([IGNORE] * len(p) + list(t)) for p, t in zip(prompts, targets, strict=True)]
        lengths = torch.tensor([len(row) for row in rows])
        bert = self.bert_tokenizer(list(questions or [self.question] * len(rows)), padding=True, return_tensors="pt")
        ids = pad_sequence(rows, batch_first=True, padding_value=self.pad_id)
        return PolicyBatch(
            input_ids=ids,
            attention_mask=torch.arange(ids.shape[1])[None] < lengths[:, None],
            bert_input_ids=bert["input_ids"],
            bert_attention_mask=bert["attention_mask"],
            video=_stack(prompts, features, "video", VIDEO_ID),
            audio=_stack(prompts, features, "audio", AUDIO_ID),
            labels=pad_sequence(labels, batch_first=True, padding_value=IGNORE) if any(targets) else None,
        )

    def decode(self, ids: Sequence[int]) -> str:
        """Text of generated tokens, special tokens left out."""
        return self.tokenizer.decode(ids, skip_special_tokens=True).strip()


def _stack(
    prompts: Sequence[Sequence[int]], features: Sequence[dict[str, Tensor]], name: str, placeholder: int
) -> Tensor | None:
    rows = [f[name] for p, f in zip(prompts, features, strict=True) if placeholder in p and name in f]
    return torch.stack(rows) if rows else None
