"""Making, reading and writing a HumanOmni policy (see `erv.policy.base.PolicyFamily`).

A folder that erv.train writes holds model*.safetensors, config.json and generation_config.json of the model, the tokenizers
in tokenizer/ and bert_tokenizer/, and the processor's settings in processor.json. A folder without processor.json is a public
checkpoint.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from erv.policy.base import Preprocessing
from erv.policy.checkpoint import read_state, read_tokenizer, write_state
from erv.policy.humanomni.checkpoint import TIED_HEAD, build, read_generation_config
from erv.policy.humanomni.config import HumanOmniConfig
from erv.policy.humanomni.convert import read_public, write_public
from erv.policy.humanomni.model import HumanOmni
from erv.policy.humanomni.processor import Processor
from erv.policy.humanomni.prompts import FOREIGN_TOKENS, QUESTION
from erv.policy.humanomni.tokenizer import train_bert_tokenizer, train_tokenizer
from erv.policy.lora import merged_state

_PROCESSOR = "processor.json"


def create(
    config: Mapping[str, Any],
    texts: Sequence[str],
    question: str | None,
    preprocessing: Preprocessing | None,
    dtype: torch.dtype,
) -> tuple[HumanOmni, Processor]:
    """A policy with random weights of the sizes `config`, and tokenizers trained on `texts` and the prompt."""
    question, preprocessing = question or QUESTION, preprocessing or "consistent"
    # the prompt is repeated so that its words and tags get tokens of their own in a small vocabulary
    prompts = ["<vi_start><vi_end>\n<au_start><au_end>\n" + question] * 50
    special = FOREIGN_TOKENS if preprocessing == "paper" else ()
    tokenizer = train_tokenizer([*texts, *prompts], special=special)
    bert_tokenizer = train_bert_tokenizer([*texts, *prompts])
    sizes = HumanOmniConfig(**config)
    sizes.bert_config.vocab_size = len(bert_tokenizer)
    sizes.text_config.update(
        {
            "vocab_size": len(tokenizer),
            "bos_token_id": None,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        }
    )
    model = HumanOmni(sizes).to(dtype)
    return model, _processor(model, tokenizer, bert_tokenizer, question, preprocessing)


def load(
    folder: Path,
    question: str | None,
    preprocessing: Preprocessing | None,
    dtype: torch.dtype,
    upstream: Mapping[str, str],
) -> tuple[HumanOmni, Processor]:
    """Read a folder that erv.train wrote, or a public checkpoint, whose towers may come from elsewhere (`upstream`)."""
    if not (folder / _PROCESSOR).is_file():
        model, tokenizer, bert_tokenizer = read_public(folder, upstream, dtype)
        processor = _processor(model, tokenizer, bert_tokenizer, question or QUESTION, preprocessing or "consistent")
        return model, processor
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
    if question:
        settings["question"] = question
    tokenizers = (read_tokenizer(folder / name) for name in ("tokenizer", "bert_tokenizer"))
    return model, Processor(*tokenizers, **settings)


def save(model: HumanOmni, processor: Processor, folder: Path, max_shard_size: str) -> None:
    """Write a folder from which `load` makes the same policy, adapters merged into the weights."""
    write_state(_stored_state(model), folder, max_shard_size)
    processor.tokenizer.save_pretrained(folder / "tokenizer")
    processor.bert_tokenizer.save_pretrained(folder / "bert_tokenizer")
    (folder / _PROCESSOR).write_text(json.dumps(processor.settings(), indent=1))
    model.language_model.generation_config.save_pretrained(folder)
    model.config.save_pretrained(folder)


def export(model: HumanOmni, processor: Processor, folder: Path, max_shard_size: str) -> None:
    """Write the public format, which the code of HumanOmni, R1-Omni and ERV reads."""
    write_public(model, _stored_state(model), folder, max_shard_size)
    processor.tokenizer.save_pretrained(folder)
    model.language_model.generation_config.save_pretrained(folder)


def _stored_state(model: HumanOmni) -> dict[str, Tensor]:
    """The weights to store: adapters merged, without an output layer that is an alias of the embeddings."""
    state = merged_state(model)
    if model.config.text_config.tie_word_embeddings:
        state.pop(TIED_HEAD)
    return state


def _processor(
    model: HumanOmni,
    tokenizer: PreTrainedTokenizerBase,
    bert_tokenizer: PreTrainedTokenizerBase,
    question: str,
    preprocessing: Preprocessing,
) -> Processor:
    """A processor with the model's sizes; answers end where the generation config says."""
    sizes, eos_ids = model.config, model.language_model.generation_config.eos_token_id
    return Processor(
        tokenizer,
        bert_tokenizer,
        sizes.vision_config.image_size,
        sizes.num_frames,
        sizes.audio_config.num_mel_bins,
        sizes.audio_seconds,
        question,
        preprocessing,
        [eos_ids] if isinstance(eos_ids, int) else eos_ids,
    )
