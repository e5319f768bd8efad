"""HumanOmni's processor: from decoded clips and a question to the model's inputs, and from generated tokens to text.

Spec: policy.md section 5. What differs between stages, if anything does, is in `erv.policy.humanomni.prompts`.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerFast, WhisperFeatureExtractor

from erv.policy.base import IGNORE_INDEX, PREPROCESSING, Preprocessing, Stage
from erv.policy.humanomni.batch import HumanOmniBatch
from erv.policy.humanomni.prompts import (
    AUDIO_ID,
    FOREIGN_TOKENS,
    IMAGE_ID,
    QUESTION,
    STYLES,
    VIDEO_ID,
    Prompt,
    Style,
    split_ids,
)
from erv.types import AUDIO_RATE, MediaSpec

SILENCE_SECONDS = 10  # of zeros, with which the released code replaces a missing sound track


class Processor:
    """Tower inputs, prompts and batches, as one stage makes them (see `at`, and `erv.policy.base.PolicyProcessor`).

    Args:
        tokenizer, bert_tokenizer: of the language model, and of the gate's BERT.
        image_size: pixels along a side of a frame.
        num_frames: frames of a clip.
        mel_bins, audio_seconds: bins and length of the log-mel spectrogram (Whisper reads 30 s).
        question: the user's text in the prompt.
        preprocessing: "consistent", one way for SFT, GRPO and inference, or "paper", the released code's ways with their
            differences.
        eos_ids: token ids that end an answer; None for the tokenizer's end token.
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
        preprocessing: Preprocessing = "consistent",
        eos_ids: Sequence[int] | None = None,
    ) -> None:
        _check_preprocessing(tokenizer, preprocessing)
        self.tokenizer, self.bert_tokenizer = tokenizer, bert_tokenizer
        self.image_size, self.num_frames = image_size, num_frames
        self.mel_bins, self.audio_seconds = mel_bins, audio_seconds
        self.question, self.preprocessing = question, preprocessing
        self.style = STYLES[preprocessing]["inference"]
        self._mel = WhisperFeatureExtractor(feature_size=mel_bins)
        self._prompts: dict[tuple[Style, tuple[str, ...], str], Prompt] = {}
        self.end_id = int(tokenizer.eos_token_id)
        self.eos_ids = [int(i) for i in eos_ids] if eos_ids else [self.end_id]
        self.pad_id = int(tokenizer.pad_token_id)

    def at(self, stage: Stage) -> Processor:
        """The processor as `stage` uses it; before, it is as inference uses it. Both share their tokenizers and prompts."""
        processor = copy.copy(self)
        processor.style = STYLES[self.preprocessing][stage]
        return processor

    def settings(self) -> dict[str, object]:
        """The constructor's plain arguments, for processor.json."""
        names = ("image_size", "num_frames", "mel_bins", "audio_seconds", "question", "preprocessing", "eos_ids")
        return {name: getattr(self, name) for name in names}

    def identity(self) -> str:
        """Everything that changes what `tensors` returns, for the key of the feature cache."""
        silence = " silence" if self.preprocessing == "paper" else ""
        return (
            f"{self.style.aspect} siglip {self.image_size} frames {self.num_frames} upright mel {self.mel_bins} "
            f"seconds {self.audio_seconds}{silence}"
        )

    def media_spec(self, modalities: Sequence[str] = ("video", "audio")) -> MediaSpec:
        """What to decode of a clip."""
        return MediaSpec(
            self.num_frames, self.image_size, self.style.aspect, self.audio_seconds, AUDIO_RATE, tuple(modalities)
        )

    def tensors(self, pictures: np.ndarray | None, wave: np.ndarray | None) -> dict[str, Tensor]:
        """Tower inputs of a decoded clip: {"video": `[T, 3, S, S]` in [-1, 1], "audio": log-mel `[M, L]`}.

        pictures: `[T, S, S, 3]` uint8; wave: `[samples]` fp32, 16 kHz mono. With preprocessing "paper" a clip without sound
        gets silence, as in the released code.
        """
        media: dict[str, Tensor] = {}
        if pictures is not None:
            values = torch.from_numpy(pictures).permute(0, 3, 1, 2).float()
            media["video"] = (values / 255 - 0.5) / 0.5  # SigLIP's mean and standard deviation
        if wave is None and self.fills_silence:
            wave = np.zeros(SILENCE_SECONDS * AUDIO_RATE, dtype=np.float32)
        if wave is not None:
            media["audio"] = self.log_mel(wave)
        return media

    @property
    def fills_silence(self) -> bool:
        """Whether a missing sound track is replaced by silence, as the released code has it."""
        return self.preprocessing == "paper"

    def log_mel(self, wave: np.ndarray) -> Tensor:
        """Whisper log-mel `[M, L]` of a 16 kHz mono wave `[samples]`, of exactly `audio_seconds` (zero-padded or cut)."""
        samples = round(self.audio_seconds * AUDIO_RATE)
        features = self._mel(
            wave,
            sampling_rate=AUDIO_RATE,
            max_length=samples,
            padding="max_length",
            truncation=True,
            return_tensors="pt",
        )
        return features["input_features"][0].float()

    def prompt_of(self, features: Mapping[str, Tensor], modalities: Sequence[str]) -> Prompt:
        """The prompt of a clip with these tower features: with those of `modalities` that it has."""
        return self.prompt([name for name in modalities if name in features])

    def prompt(self, modalities: Sequence[str] = ("video", "audio"), question: str | None = None) -> Prompt:
        """The chat prompt of this stage, with VIDEO_ID / AUDIO_ID where the media of `modalities` go; tokenised once each."""
        question = question or self.question
        key = (self.style, tuple(modalities), question)
        if key not in self._prompts:
            chat = [{"role": "user", "content": self.style.content(modalities, question)}]
            if self.style.system is not None:
                chat = [{"role": "system", "content": self.style.system}, *chat]
            text = self.tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
            bert_text = self.style.bert_text(modalities, question)
            self._prompts[key] = Prompt(tuple(self.split_ids(text)), bert_text)
        return self._prompts[key]

    def split_ids(self, text: str) -> list[int]:
        """Token ids of a text, with the negative ids of its placeholders."""
        return split_ids(text, self._ids)

    def target_ids(self, text: str) -> list[int]:
        """Token ids of an answer: text, end token, line end.

        split_special_tokens: a control token that a corpus has written in its text must not end or restart the chat.
        """
        ids = self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        return [*ids, self.end_id, *self._ids("\n")]

    def _ids(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    @torch.autocast("cpu", enabled=False)  # bf16 autocast on the CPU refuses to stack the cache's fp16 features
    def collate(
        self,
        prompts: Sequence[Prompt],
        features: Sequence[dict[str, Tensor]],
        targets: Sequence[Sequence[int]] | None = None,
    ) -> HumanOmniBatch:
        """Make one right-padded batch of prompts and the tower features of their clips.

        Args:
            prompts: one per row.
            features: tower features of each row's clip; a modality is used where the prompt has its placeholder. Clips may
                differ in their number of frames.
            targets: token ids to append to each prompt, the only ones with labels.
        """
        targets = targets or [[]] * len(prompts)
        rows = [torch.tensor([*p.ids, *t]) for p, t in zip(prompts, targets, strict=True)]
        labels = [torch.tensor([IGNORE_INDEX] * len(p.ids) + list(t)) for p, t in zip(prompts, targets, strict=True)]
        lengths = torch.tensor([len(row) for row in rows])
        bert = self.bert_tokenizer([p.bert for p in prompts], padding=True, return_tensors="pt")
        ids = pad_sequence(rows, batch_first=True, padding_value=self.pad_id)
        video = _features_in_prompts(prompts, features, "video", (VIDEO_ID, IMAGE_ID))
        audio = _features_in_prompts(prompts, features, "audio", (AUDIO_ID,))
        frames = [len(v) for v in video]
        return HumanOmniBatch(
            input_ids=ids,
            attention_mask=torch.arange(ids.shape[1])[None] < lengths[:, None],
            bert_input_ids=bert["input_ids"],
            bert_attention_mask=bert["attention_mask"],
            video=pad_sequence(video, batch_first=True) if video else None,
            frames=torch.tensor(frames) if len(set(frames)) > 1 else None,
            audio=torch.stack(audio) if audio else None,
            labels=pad_sequence(labels, batch_first=True, padding_value=IGNORE_INDEX) if any(targets) else None,
        )

    def decode(self, ids: Sequence[int]) -> str:
        """Text of generated tokens, without special tokens."""
        return self.tokenizer.decode(ids, skip_special_tokens=True).strip()


def _features_in_prompts(
    prompts: Sequence[Prompt], features: Sequence[dict[str, Tensor]], name: str, placeholders: Sequence[int]
) -> list[Tensor]:
    """The features of modality `name` of the rows whose prompt has one of its `placeholders`."""
    rows = zip(prompts, features, strict=True)
    return [f[name] for p, f in rows if name in f and any(i in p.ids for i in placeholders)]


def _check_preprocessing(tokenizer: PreTrainedTokenizerFast, preprocessing: str) -> None:
    if preprocessing not in PREPROCESSING:
        raise ValueError(f"policy.preprocessing is one of {', '.join(PREPROCESSING)}; got {preprocessing!r}")
    absent = [token for token in FOREIGN_TOKENS if token not in tokenizer.get_vocab()]
    if preprocessing == "paper" and absent:
        raise ValueError(
            f"policy.preprocessing=paper writes GRPO prompts with {', '.join(absent)}, which this tokenizer does not know; "
            "use a checkpoint with Qwen2's tokenizer, or policy.preprocessing=consistent"
        )
