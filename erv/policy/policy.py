"""A policy is a model and its processor; both come from one folder and go into one."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from erv.policy.humanomni.checkpoint import build, locate, read_generation_config, read_state, tokenizer_of, write_state
from erv.policy.humanomni.config import HumanOmniConfig
from erv.policy.humanomni.convert import read_public, write_public
from erv.policy.humanomni.model import HumanOmni
from erv.policy.humanomni.processor import Processor
from erv.policy.humanomni.prompts import FOREIGN_TOKENS, QUESTION, Preprocessing, Stage
from erv.policy.humanomni.tokenizer import train_bert_tokenizer, train_tokenizer
from erv.policy.lora import add_lora, merged_state
from erv.utils.tensors import tensors_sha256

M = TypeVar("M", bound=nn.Module)

DEFAULT_TRAIN = ("language_model", "mm_projector", "audio_projector", "bert_gate")
Attention = Literal["sdpa", "flash_attention_2", "eager"]
Dtype = Literal["float32", "bfloat16", "float16"]
_PROCESSOR = "processor.json"


@dataclass(frozen=True)
class Policy:
    """The model and what turns clips into its inputs."""

    model: HumanOmni
    processor: Processor

    def at(self, stage: Stage) -> Policy:
        """The same model with the processor as `stage` uses it."""
        return replace(self, processor=self.processor.at(stage))

    def encode(self, media: Sequence[Mapping[str, Tensor]], batch_size: int | None = None) -> list[dict[str, Tensor]]:
        """Tower features {"video": `[T, N, d]`, "audio": `[A, d_a]`} of what `Processor.tensors` gave for each clip.

        With `batch_size` the towers always see that many clips, the last ones more than once: then a clip's features do not
        depend, to the last bit, on the clips beside it. A gradient flows into a tower that is trained.
        """
        towers = {"video": self.model.encode_video, "audio": self.model.encode_audio}
        device = self.model.vision_tower.device  # where the towers are; other parts may have to wait for their place
        found: list[dict[str, Tensor]] = [{} for _ in media]
        for name, tower in towers.items():
            rows = [i for i, row in enumerate(media) if name in row]
            size = batch_size or max(len(rows), 1)
            for start in range(0, len(rows), size):
                batch = rows[start : start + size]
                filled = [*batch, *batch[-1:] * (size - len(batch))]
                features = tower(torch.stack([media[i][name] for i in filled]).to(device))
                for i, value in zip(batch, features, strict=False):
                    found[i][name] = value
        return found

    def towers_sha256(self) -> str:
        """The identity of the towers' weights, for the tower cache."""
        return tensors_sha256(self.model.tower_state())

    def sha256(self) -> str:
        """The identity of all weights."""
        return tensors_sha256(self.model.state_dict())


def load_policy(
    checkpoint: str | None = None,
    config: dict[str, Any] | None = None,
    train: Sequence[str] = DEFAULT_TRAIN,
    question: str | None = None,
    preprocessing: Preprocessing | None = None,
    dtype: Dtype = "float32",
    attention: Attention = "sdpa",
    gradient_checkpointing: bool = False,
    lora: dict[str, Any] | None = None,
    upstream: dict[str, str] | None = None,
    texts: Sequence[str] | None = None,
) -> Policy:
    """A policy from a folder or hub id in the public format or ours, or with random weights of the sizes in `config`.

    Without `checkpoint` the tokenizers are trained on `texts` (rationales, answers, prompts), and `config` holds the
    keyword arguments of HumanOmniConfig; the vocabulary size is the tokenizer's. With one, everything that
    `config` says is the checkpoint's, and `question` and `preprocessing` too unless they are given. `upstream` names other
    places of the models a public checkpoint is made of: {"vision_tower", "audio_tower", "bert_model": path or hub id}.

    `train` lists the trained parts; `lora` (keyword arguments of peft.LoraConfig, `{}` for the defaults here) puts adapters
    on all linear layers of the language model, which are then what is trained of it. `attention` is the language
    model's; `dtype` the weights', of which training widens those that it changes (`HumanOmni.widen_trained`).
    """
    kind = getattr(torch, dtype)
    if checkpoint is None:
        if config is None or not texts:
            raise ValueError("a policy without policy.checkpoint needs policy.config and texts for its tokenizers")
        policy = _fresh(config, texts, question or QUESTION, preprocessing or "consistent", kind)
    else:
        folder = locate(checkpoint)
        if (folder / _PROCESSOR).is_file():
            policy = _load(folder, question, preprocessing, kind)
        else:
            model, tokenizer, bert = read_public(folder, upstream or {}, kind)
            policy = _joined(model, tokenizer, bert, question or QUESTION, preprocessing or "consistent")
    language_model = policy.model.language_model
    try:
        language_model.set_attn_implementation(attention)
    except ImportError as error:
        raise ValueError(
            f"policy.attention={attention} cannot be used here ({error}); install it, or set sdpa"
        ) from error
    if lora is not None:
        add_lora(language_model, lora)
    if gradient_checkpointing:
        language_model.gradient_checkpointing_enable({"use_reentrant": False})
    policy.model.set_trainable(train).eval()
    return policy


def save_policy(policy: Policy, folder: str | Path, max_shard_size: str = "5GB") -> None:
    """Write weights, sizes, tokenizers and preprocessing so that `load_policy(folder)` gives the same policy.

    Adapters are merged into the weights.
    """
    folder = Path(folder)
    write_state(_weights(policy.model), folder, max_shard_size)
    policy.processor.tokenizer.save_pretrained(folder / "tokenizer")
    policy.processor.bert_tokenizer.save_pretrained(folder / "bert_tokenizer")
    (folder / _PROCESSOR).write_text(json.dumps(policy.processor.settings(), indent=1))
    policy.model.language_model.generation_config.save_pretrained(folder)
    policy.model.config.save_pretrained(folder)


def export_policy(policy: Policy, folder: str | Path, max_shard_size: str = "5GB") -> None:
    """Write the policy in the public format, which the code of HumanOmni, R1-Omni and ERV reads."""
    folder = Path(folder)
    write_public(policy.model, _weights(policy.model), folder, max_shard_size)
    policy.processor.tokenizer.save_pretrained(folder)
    policy.model.language_model.generation_config.save_pretrained(folder)


def _weights(model: HumanOmni) -> dict[str, Tensor]:
    """The weights, adapters merged, those that are another weight's alias left out."""
    state = merged_state(model)
    if model.config.text_config.tie_word_embeddings:
        state.pop("language_model.lm_head.weight")
    return state


def _fresh(
    config: dict[str, Any], texts: Sequence[str], question: str, preprocessing: Preprocessing, dtype: torch.dtype
) -> Policy:  # fmt: skip
    prompts = ["<vi_start><vi_end>\n<au_start><au_end>\n" + question] * 50
    special = FOREIGN_TOKENS if preprocessing == "paper" else ()
    tokenizer = train_tokenizer([*texts, *prompts], special=special)
    bert_tokenizer = train_bert_tokenizer([*texts, *prompts])
    sizes = HumanOmniConfig(**config)
    sizes.bert_config.vocab_size = len(bert_tokenizer)
    sizes.text_config.update(
        {"vocab_size": len(tokenizer), "bos_token_id": None, "eos_token_id": tokenizer.eos_token_id,
         "pad_token_id": tokenizer.pad_token_id}
    )  # fmt: skip
    return _joined(HumanOmni(sizes).to(dtype), tokenizer, bert_tokenizer, question, preprocessing)


def _joined(
    model: HumanOmni, tokenizer: PreTrainedTokenizerBase, bert_tokenizer: PreTrainedTokenizerBase, question: str,
    preprocessing: Preprocessing,
) -> Policy:  # fmt: skip
    """A policy whose processor has the model's sizes and ends answers where its generation config says."""
    sizes, ends = model.config, model.language_model.generation_config.eos_token_id
    processor = Processor(
        tokenizer, bert_tokenizer, sizes.vision_config.image_size, sizes.num_frames, sizes.audio_config.num_mel_bins,
        sizes.audio_seconds, question, preprocessing, [ends] if isinstance(ends, int) else ends,
    )  # fmt: skip
    return Policy(model, processor)


def _load(folder: Path, question: str | None, preprocessing: Preprocessing | None, dtype: torch.dtype) -> Policy:
    config = HumanOmniConfig.from_pretrained(folder)
    model = build(config, read_state(folder), dtype, source=str(folder), public=False)
    read_generation_config(folder, model)
    settings = json.loads((folder / _PROCESSOR).read_text())
    trained_with = settings["preprocessing"]
    if preprocessing not in (None, trained_with):
        raise ValueError(
            f"{folder} was trained with policy.preprocessing={trained_with}, the config asks for {preprocessing}; leave the "
            "key out or start from another checkpoint"
        )
    tokenizers = (tokenizer_of(folder / name) for name in ("tokenizer", "bert_tokenizer"))
    processor = Processor(*tokenizers, **{**settings, **({"question": question} if question else {})})
    return Policy(model, processor)


def frozen_copy(model: M) -> M:
    """A copy that is never trained; the weights that `model` does not train either are shared, not copied.

    With LoRA only the adapters are copied.
    """
    shared = [p for p in model.parameters() if not p.requires_grad]
    reference: M = copy.deepcopy(model, {id(p): p for p in shared})
    return reference.requires_grad_(False).eval()
