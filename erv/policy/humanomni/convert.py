"""Public checkpoints of HumanOmni, R1-Omni and ERV: reading them, and writing weights back for their code.

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

from erv.policy.checkpoint import CheckpointError, locate, read_state, read_tokenizer, write_state
from erv.policy.humanomni.backbones import AUDIO, BERT, HUB_IDS, VISION, short_name
from erv.policy.humanomni.checkpoint import (
    TIED_HEAD,
    build,
    from_original_names,
    read_generation_config,
    to_original_names,
)
from erv.policy.humanomni.config import PUBLIC_MODEL_TYPE, HumanOmniConfig
from erv.policy.humanomni.model import HumanOmni

_log = logging.getLogger(__name__)
# part -> prefixes that its weights may have in its own repository
_TOWERS = {"vision_tower": ("vision_model.", ""), "audio_tower": ("model.encoder.", "encoder.")}
_EMBEDDINGS = "language_model.model.embed_tokens.weight"


def read_public(
    folder: Path, upstream: Mapping[str, str], dtype: torch.dtype
) -> tuple[HumanOmni, PreTrainedTokenizerBase, PreTrainedTokenizerBase]:
    """Read model, tokenizer and BERT tokenizer of a public checkpoint; CheckpointError for one that is not whole.

    Towers come from the checkpoint when it holds them, else from `upstream` or the ids in its config; the log says which.
    """
    config = read_config(folder, upstream)
    state = from_original_names(read_state(folder))
    if _EMBEDDINGS in state:  # the released SFT cuts the vocabulary without a word (original-defects.md 8)
        config.text_config.vocab_size = state[_EMBEDDINGS].shape[0]
    if config.text_config.tie_word_embeddings:
        _drop_tied_head(state, folder)
    for part in _TOWERS:
        _add_tower(state, part, config.upstream[part])
    model = build(config, state, dtype, source=str(folder), public=True)
    read_generation_config(folder, model)
    bert_folder = _locate_backbone(config.upstream["bert_model"], weights=False)
    return model, read_tokenizer(folder, config.text_config), read_tokenizer(bert_folder)


def read_config(folder: Path, upstream: Mapping[str, str]) -> HumanOmniConfig:
    """The sizes of a checkpoint, public or written by erv.train, from its config alone."""
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
    sources = _sources(values, upstream)
    known_sizes = {"vision_tower": VISION, "audio_tower": AUDIO, "bert_model": BERT}
    vision, audio, bert = (_sizes(sources[part], sizes) for part, sizes in known_sizes.items())
    return HumanOmniConfig.from_public(values, vision, audio, bert, upstream=sources)


def write_public(model: HumanOmni, state: Mapping[str, Tensor], folder: Path, max_shard_size: str = "5GB") -> None:
    """Write `state`, the weights of `model` under our names, and its sizes in the form that the released code reads."""
    write_state(to_original_names(state), folder, max_shard_size)
    (folder / "config.json").write_text(json.dumps(model.config.to_public(), indent=1) + "\n")


def _sources(values: Mapping[str, Any], upstream: Mapping[str, str]) -> dict[str, str]:
    """Where each backbone comes from (folder or hub id): `upstream`, else the checkpoint's config, else what its sizes tell."""
    if unknown := set(upstream) - {*_TOWERS, "bert_model"}:
        raise ValueError(
            f"policy.upstream names vision_tower, audio_tower, bert_model; got {', '.join(sorted(unknown))}"
        )
    named: dict[str, Any] = {part: values.get(f"mm_{part}") or values.get(part) for part in _TOWERS}
    width = values.get("mm_hidden_size")
    if not named["vision_tower"]:
        named["vision_tower"] = next((HUB_IDS[n] for n, s in VISION.items() if s["hidden_size"] == width), None)
    if not named["audio_tower"]:
        named["audio_tower"] = HUB_IDS["whisper-large-v3"]
    sources = {**named, "bert_model": HUB_IDS["bert-base-uncased"], **upstream}
    if not sources["vision_tower"]:
        raise CheckpointError(
            f"config.json names no vision tower and none is known with mm_hidden_size={width}; set "
            "policy.upstream.vision_tower to a folder or hub id"
        )
    return sources


def _sizes(reference: str, known_sizes: Mapping[str, Any]) -> PretrainedConfig | dict[str, Any]:
    """The configuration of a backbone: its folder's if it is one, else that of a well-known name, else the hub's."""
    if not Path(reference).is_dir() and short_name(reference) in known_sizes:
        return known_sizes[short_name(reference)]
    config = AutoConfig.from_pretrained(_locate_backbone(reference, weights=False), trust_remote_code=False)
    return getattr(config, "vision_config", config)  # of SigLIP, which has a text model as well


def _locate_backbone(reference: str, weights: bool = True) -> Path:
    """Find the folder of a backbone: a local folder as it is, a well-known name at its hub id whatever stands before it."""
    if Path(reference).is_dir():
        return Path(reference)
    return locate(HUB_IDS.get(short_name(reference), reference), weights)


def _drop_tied_head(state: dict[str, Tensor], folder: Path) -> None:
    head = state.pop(TIED_HEAD, None)
    if head is not None and not torch.equal(head, state.get(_EMBEDDINGS, head)):
        raise CheckpointError(
            f"{folder} ties lm_head to the embeddings but holds an lm_head.weight that differs from them; set "
            '"tie_word_embeddings": false in its config.json'
        )


def _add_tower(state: dict[str, Tensor], part: str, reference: str) -> None:
    """Take a tower that the checkpoint lacks from upstream; of one that is in both, check that the weights are the same."""
    tower = {n: v for n, v in state.items() if n.startswith(f"{part}.")}
    if not tower:
        state |= _upstream_tower(part, reference)
        _log.info("%s: from %s, the checkpoint holds none", part, reference)
        return
    _log.info("%s: from the checkpoint", part)
    if Path(reference).is_dir():
        other = _upstream_tower(part, reference)
        different = [n for n, v in tower.items() if n in other and not _same(v, other[n])]
        if different:
            raise CheckpointError(
                f"the checkpoint's {part} and the one in {reference} should be the same weights, but {len(different)} tensors "
                f"differ, first {different[0]}; to use the checkpoint's, give the hub id in policy.upstream.{part}"
            )


def _upstream_tower(part: str, reference: str) -> dict[str, Tensor]:
    """A tower's weights from its own repository, under our names."""
    state = read_state(_locate_backbone(reference))
    for prefix in _TOWERS[part]:
        tower = {f"{part}.{n.removeprefix(prefix)}": v for n, v in state.items() if n.startswith(prefix)}
        if tower:
            return {n: v for n, v in tower.items() if not n.endswith("position_ids")}
    raise CheckpointError(f"{reference} holds no {part}: no weight begins with {' or '.join(_TOWERS[part])}")


def _same(a: Tensor, b: Tensor) -> bool:
    """Equal up to the rounding of a half-precision copy (bf16 has 8 significant bits)."""
    return a.shape == b.shape and torch.allclose(a.float(), b.float(), rtol=2**-7, atol=1e-6)
