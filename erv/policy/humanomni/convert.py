"""Checkpoints of HumanOmni, R1-Omni and ERV as they were released: reading them, and writing weights back for their code.

Spec: policy.md sections 1 and 2.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, PretrainedConfig, PreTrainedTokenizerBase

from erv.policy.humanomni.backbones import AUDIO, BERT, HUB_IDS, VISION, short_name
from erv.policy.humanomni.checkpoint import (
    CheckpointError,
    build,
    from_original_names,
    locate,
    read_generation_config,
    read_state,
    to_original_names,
    tokenizer_of,
    write_state,
)
from erv.policy.humanomni.config import PUBLIC_MODEL_TYPE, HumanOmniConfig
from erv.policy.humanomni.model import HumanOmni

_log = logging.getLogger(__name__)
_TOWERS = {"vision_tower": ("vision_model.", ""), "audio_tower": ("model.encoder.", "encoder.")}  # prefixes upstream
_HEAD, _EMBEDDINGS = "language_model.lm_head.weight", "language_model.model.embed_tokens.weight"


def read_public(
    folder: Path, upstream: Mapping[str, str], dtype: torch.dtype
) -> tuple[HumanOmni, PreTrainedTokenizerBase, PreTrainedTokenizerBase]:
    """Model, tokenizer and BERT tokenizer of a public checkpoint; CheckpointError for what is not whole.

    Towers come from the checkpoint when it holds them, else from `upstream` or the ids in its config; the log says which.
    """
    config = read_config(folder, upstream)
    places = config.upstream
    state = from_original_names(read_state(folder))
    if _EMBEDDINGS in state:  # the released SFT cuts the vocabulary without a word (original-defects.md 8)
        config.text_config.vocab_size = state[_EMBEDDINGS].shape[0]
    if config.text_config.tie_word_embeddings:
        _drop_tied_head(state, folder)
    for part in _TOWERS:
        _complete(state, part, places[part])
    model = build(config, state, dtype, source=str(folder), public=True)
    read_generation_config(folder, model)
    return model, tokenizer_of(folder, config.text_config), tokenizer_of(locate(places["bert_model"], weights=False))


def read_config(folder: Path, upstream: Mapping[str, str]) -> HumanOmniConfig:
    """The sizes of a checkpoint, public or ours, from its config alone."""
    if not (folder / "config.json").is_file():
        raise CheckpointError(f"{folder} holds no config.json; give a folder of a HumanOmni checkpoint or of erv.train")
    values = json.loads((folder / "config.json").read_text())
    if values.get("model_type") == HumanOmniConfig.model_type:
        return HumanOmniConfig.from_pretrained(folder)
    if values.get("model_type") != PUBLIC_MODEL_TYPE:
        raise CheckpointError(
            f"{folder} holds a {values.get('model_type')!r}; policy.checkpoint must be a {PUBLIC_MODEL_TYPE!r} "
            "(HumanOmni, R1-Omni, ERV) or a folder written by erv.train"
        )
    places = _places(values, upstream)
    known = {"vision_tower": VISION, "audio_tower": AUDIO, "bert_model": BERT}
    vision, audio, bert = (_sizes(places[part], sizes) for part, sizes in known.items())
    return HumanOmniConfig.from_public(values, vision, audio, bert, upstream=places)


def write_public(model: HumanOmni, state: Mapping[str, Tensor], folder: Path, max_shard_size: str = "5GB") -> None:
    """Write `state`, the weights of `model` under our names, and its sizes in the form that the released code reads."""
    write_state(to_original_names(state), folder, max_shard_size)
    (folder / "config.json").write_text(json.dumps(model.config.to_public(), indent=1) + "\n")


def _places(values: Mapping[str, Any], upstream: Mapping[str, str]) -> dict[str, str]:
    """Where each part comes from: `upstream`, else the checkpoint's own word, else what its sizes tell."""
    unknown = set(upstream) - {*_TOWERS, "bert_model"}
    if unknown:
        raise ValueError(
            f"policy.upstream names vision_tower, audio_tower, bert_model; got {', '.join(sorted(unknown))}"
        )
    found: dict[str, Any] = {part: values.get(f"mm_{part}") or values.get(part) for part in _TOWERS}
    width = values.get("mm_hidden_size")
    if not found["vision_tower"]:
        found["vision_tower"] = next((HUB_IDS[n] for n, s in VISION.items() if s["hidden_size"] == width), None)
    if not found["audio_tower"]:
        found["audio_tower"] = HUB_IDS["whisper-large-v3"]
    places = {**found, "bert_model": HUB_IDS["bert-base-uncased"], **upstream}
    if not places["vision_tower"]:
        raise CheckpointError(
            f"config.json names no vision tower and none is known with mm_hidden_size={width}; set "
            "policy.upstream.vision_tower to a folder or hub id"
        )
    return places


def _sizes(reference: str, known: Mapping[str, Any]) -> PretrainedConfig | dict[str, Any]:
    """The configuration of a tower: its folder's where there is one, else of a well-known name, else the hub's."""
    if not Path(reference).is_dir() and short_name(reference) in known:
        return known[short_name(reference)]
    config = AutoConfig.from_pretrained(locate(reference, weights=False), trust_remote_code=False)
    return getattr(config, "vision_config", config)


def _drop_tied_head(state: dict[str, Tensor], folder: Path) -> None:
    head = state.pop(_HEAD, None)
    if head is not None and not torch.equal(head, state.get(_EMBEDDINGS, head)):
        raise CheckpointError(
            f"{folder} ties lm_head to the embeddings but holds an lm_head.weight that differs from them; set "
            '"tie_word_embeddings": false in its config.json'
        )


def _complete(state: dict[str, Tensor], part: str, reference: str) -> None:
    """Take a tower that the checkpoint lacks from upstream; check one that is in both places to be the same."""
    own = {n: v for n, v in state.items() if n.startswith(f"{part}.")}
    if not own:
        state |= _upstream_tower(part, reference)
        _log.info("%s: from %s, the checkpoint holds none", part, reference)
        return
    _log.info("%s: from the checkpoint", part)
    if Path(reference).is_dir():
        other = _upstream_tower(part, reference)
        apart = [n for n, v in own.items() if n in other and not _same(v, other[n])]
        if apart:
            raise CheckpointError(
                f"the checkpoint's {part} and the one in {reference} should be the same weights, but {len(apart)} tensors "
                f"differ, first {apart[0]}; to use the checkpoint's, give the hub id in policy.upstream.{part}"
            )


def _upstream_tower(part: str, reference: str) -> dict[str, Tensor]:
    state = read_state(locate(reference))
    for prefix in _TOWERS[part]:
        found = {f"{part}.{n.removeprefix(prefix)}": v for n, v in state.items() if n.startswith(prefix)}
        if found:
            return {n: v for n, v in found.items() if not n.endswith("position_ids")}
    raise CheckpointError(f"{reference} holds no {part}: no weight begins with {' or '.join(_TOWERS[part])}")


def _same(a: Tensor, b: Tensor) -> bool:
    """Equal up to the rounding of a half-precision copy."""
    return a.shape == b.shape and torch.allclose(a.float(), b.float(), rtol=2**-7, atol=1e-6)
