"""Weights of HumanOmni: our names and the public ones, and a model built from exactly the weights it needs.

Spec: policy.md section 2. Our names are the module names of `HumanOmni`; the public ones hang everything under `model.`.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor
from transformers import GenerationConfig
from transformers.utils import logging as library_logging

from erv.policy.checkpoint import CheckpointError
from erv.policy.humanomni.config import HumanOmniConfig
from erv.policy.humanomni.model import HumanOmni

_log = logging.getLogger(__name__)
TIED_HEAD = "language_model.lm_head.weight"  # an alias of the embeddings where they are tied, and then not stored
# (our prefix, public prefix as written, public prefix as read); the first match counts. SigLIP lost its inner
# "vision_model." in transformers 5, so that newer files lack it.
_PREFIXES = (
    (
        "vision_tower.",
        "model.vision_tower.vision_tower.vision_model.",
        r"model\.vision_tower\.vision_tower\.(vision_model\.)?",
    ),
    ("audio_tower.", "model.audio_tower.audio_tower.encoder.", r"model\.audio_tower\.audio_tower\.encoder\."),
    ("mm_projector.", "model.mm_projector.", r"model\.mm_projector\."),
    ("audio_projector.", "model.audio_projector.", r"model\.audio_projector\."),
    ("bert_model.", "model.bert_model.", r"model\.bert_model\."),
    ("bert_gate.", "model.bert_gate.", r"model\.bert_gate\."),
    ("language_model.lm_head.", "lm_head.", r"lm_head\."),
    ("language_model.model.", "model.", r"model\."),
)
# Weights of some public checkpoints that no forward pass uses: HumanOmni's own compressor, Whisper's classification head,
# and buffers that older versions of transformers saved and newer ones compute.
_UNUSED = re.compile(
    r"model\.feature_compressor\.|model\.audio_tower\.audio_tower\.(projector|classifier)\.|"
    r".*\.(position_ids|rotary_emb\.inv_freq)$"
)


def from_original_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename a public checkpoint's weights to ours; weights that its forward pass never uses are left out."""
    return {our_name(name): value for name, value in state.items() if not _UNUSED.match(name)}


def to_original_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename our weights to the public names."""
    return {original_name(name): value for name, value in state.items()}


def our_name(name: str) -> str:
    """Our name of a public weight."""
    for ours, _, pattern in _PREFIXES:
        if match := re.match(pattern, name):
            return ours + name[match.end() :]
    raise CheckpointError(
        f"{name!r} is no weight of HumanOmni; they begin with {', '.join(p for _, p, _ in _PREFIXES)}"
    )


def original_name(name: str) -> str:
    """The public name of one of our weights."""
    for ours, public, _ in _PREFIXES:
        if name.startswith(ours):
            return public + name.removeprefix(ours)
    raise CheckpointError(f"{name!r} is no weight of HumanOmni; its parts are {', '.join(o for o, _, _ in _PREFIXES)}")


def check_state(state: Mapping[str, Tensor], expected: Mapping[str, Tensor], source: str, public: bool) -> None:
    """Raise one CheckpointError that lists every missing, unexpected and misshapen weight of `state`.

    Messages name the weights as the file does: by their public names when `public`.
    """
    name_in_file = original_name if public else str
    missing = [name for name in expected if name not in state]
    unexpected = [name for name in state if name not in expected]
    misshapen = [name for name in state if name in expected and state[name].shape != expected[name].shape]
    problems = [
        *_listed("missing", map(name_in_file, missing)),
        *_listed("unexpected", map(name_in_file, unexpected)),
        *_listed(
            "of another shape than the config says",
            (f"{name_in_file(n)} {tuple(state[n].shape)}, not {tuple(expected[n].shape)}" for n in misshapen),
        ),
    ]
    if problems:
        raise CheckpointError("\n  ".join([f"{source} does not fit its config:", *problems]))


def build(
    config: HumanOmniConfig, state: Mapping[str, Tensor], dtype: torch.dtype, source: str, public: bool
) -> HumanOmni:
    """Build the model with exactly the weights `state` (our names), in `dtype`; CheckpointError where they do not fit."""
    with torch.device("meta"):
        expected = HumanOmni(config).state_dict()
    if config.text_config.tie_word_embeddings:
        expected.pop(TIED_HEAD)
    check_state(state, expected, source, public)
    library_logging.disable_progress_bar()  # it counts tensors, not what a user waits for
    model: HumanOmni = HumanOmni.from_pretrained(None, config=config, state_dict=dict(state), dtype=dtype)
    for parameter in model.parameters():
        # copied from the mapped file: it may be replaced on disk, and its odd alignment changes last bits of matrix products
        parameter.data = parameter.data.clone()
    return model


def read_generation_config(folder: Path, model: HumanOmni) -> None:
    """Give the language model the generation config of `folder` if it has one; its end tokens end our answers too."""
    if not (folder / "generation_config.json").is_file():
        return
    config = GenerationConfig.from_pretrained(folder)
    model.language_model.generation_config = config
    if config.repetition_penalty not in (None, 1.0):
        _log.warning(
            "%s asks for repetition_penalty=%s, which HumanOmni.generate applies; answers in training and evaluation are "
            "drawn from the policy as it is",
            folder / "generation_config.json",
            config.repetition_penalty,
        )


def _listed(what: str, names: Iterable[str]) -> list[str]:
    listed = list(names)
    return [f"{what} ({len(listed)}): {', '.join(listed)}"] if listed else []
