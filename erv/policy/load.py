"""A policy is a model and its processor; both come from one folder and go into one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoTokenizer

from erv.media.cache import Features, tensors_sha256
from erv.policy.config import HumanOmniConfig
from erv.policy.model import HumanOmni
from erv.policy.processor import QUESTION, Processor
from erv.policy.tokenizer import train_bert_tokenizer, train_tokenizer

DEFAULT_TRAIN = ("language_model", "mm_projector", "audio_projector", "bert_gate")
_WEIGHTS = "model.safetensors"


@dataclass(frozen=True)
class Policy:
    """The model and what turns clips into its inputs."""

    model: HumanOmni
    processor: Processor

    @torch.no_grad()
    def encode_files(self, paths: Sequence[str]) -> list[Features]:
        """Tower features {"video": `[T, N, d]`, "audio": `[A, d_a]`} of each file; a silent file has no "audio"."""
        media = [self.processor.load_media(path) for path in paths]
        device = self.model.device
        video = self.model.encode_video(torch.stack([m["video"] for m in media]).to(device)).cpu()
        sounding = [m["audio"] for m in media if "audio" in m]
        audio = iter(self.model.encode_audio(torch.stack(sounding).to(device)).cpu() if sounding else ())
        return [
            {"video": v, "audio": next(audio)} if "audio" in m else {"video": v}
            for v, m in zip(video, media, strict=True)
        ]

    def towers_sha256(self) -> str:
        """The identity of the towers' weights, for the tower cache."""
        towers = {n: v for n, v in self.model.state_dict().items() if n.startswith(("vision_tower.", "audio_tower."))}
        return tensors_sha256(towers)


def load_policy(
    checkpoint: str | None = None,
    config: dict[str, Any] | None = None,
    train: Sequence[str] = DEFAULT_TRAIN,
    audio_seconds: float = 30.0,
    question: str = QUESTION,
    texts: Sequence[str] | None = None,
) -> Policy:
    """A policy from a folder written by `save_policy`, or with random weights of the sizes in `config`.

    Without `checkpoint` the tokenizers are trained on `texts` (rationales, answers, prompts), and `config` holds the
    keyword arguments of HumanOmniConfig; the vocabulary size is the tokenizer's. With one, sizes, question and
    preprocessing are the checkpoint's.
    """
    if checkpoint is not None:
        return _load(Path(checkpoint), train)
    if config is None or not texts:
        raise ValueError("a policy without policy.checkpoint needs policy.config and texts for its tokenizers")
    prompts = ["<vi_start><vi_end>\n<au_start><au_end>\n" + question] * 50
    tokenizer, bert_tokenizer = train_tokenizer([*texts, *prompts]), train_bert_tokenizer([*texts, *prompts])
    text = {**config["text_config"], "vocab_size": len(tokenizer), "bos_token_id": None,
            "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}  # fmt: skip
    bert = {**config["bert_config"], "vocab_size": len(bert_tokenizer)}
    sizes = HumanOmniConfig(**{**config, "text_config": text, "bert_config": bert})
    processor = Processor(
        tokenizer, bert_tokenizer, sizes.vision_config.image_size, sizes.num_frames, sizes.audio_config.num_mel_bins,
        audio_seconds, question,
    )  # fmt: skip
    return Policy(HumanOmni(sizes).set_trainable(list(train)).eval(), processor)


def save_policy(policy: Policy, folder: str | Path) -> None:
    """Write weights, sizes, tokenizers and preprocessing so that `load_policy(folder)` gives the same policy."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    policy.processor.tokenizer.save_pretrained(folder / "tokenizer")
    policy.processor.bert_tokenizer.save_pretrained(folder / "bert_tokenizer")
    (folder / "processor.json").write_text(json.dumps(policy.processor.settings(), indent=1))
    save_file(_untied(policy.model), folder / _WEIGHTS, metadata={"format": "pt"})
    policy.model.config.save_pretrained(folder)


def _untied(model: HumanOmni) -> dict[str, Tensor]:
    """The weights, those that are another weight's alias left out."""
    state = {name: value.contiguous() for name, value in model.state_dict().items()}
    if model.config.text_config.tie_word_embeddings:
        state.pop("language_model.lm_head.weight")
    return state


def _load(folder: Path, train: Sequence[str]) -> Policy:
    if not (folder / _WEIGHTS).is_file():
        raise FileNotFoundError(f"{folder} holds no {_WEIGHTS}; set policy.checkpoint to a folder written by erv.train")
    config = HumanOmniConfig.from_pretrained(folder)
    model = HumanOmni(config)
    missing, unexpected = model.load_state_dict(load_file(folder / _WEIGHTS), strict=False)
    if config.text_config.tie_word_embeddings:
        missing = [name for name in missing if name != "language_model.lm_head.weight"]
    if missing or unexpected:
        raise ValueError(f"{folder / _WEIGHTS} does not fit its config: missing {missing}, unexpected {unexpected}")
    tokenizers = (AutoTokenizer.from_pretrained(folder / name) for name in ("tokenizer", "bert_tokenizer"))
    processor = Processor(*tokenizers, **json.loads((folder / "processor.json").read_text()))
    return Policy(model.set_trainable(list(train)).eval(), processor)
