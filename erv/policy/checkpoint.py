"""Names of weights: the public checkpoints' and ours.

Spec: policy.md section 2. Ours are the module names of `HumanOmni`; the public ones hang everything under `model.`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

# (public prefix, ours); the first that fits counts
_PREFIXES = (
    ("model.vision_tower.vision_tower.vision_model.", "vision_tower."),
    ("model.audio_tower.audio_tower.encoder.", "audio_tower."),
    ("model.mm_projector.", "mm_projector."),
    ("model.audio_projector.", "audio_projector."),
    ("model.bert_model.", "bert_model."),
    ("model.bert_gate.", "bert_gate."),
    ("lm_head.", "language_model.lm_head."),
    ("model.", "language_model.model."),
)
# Present in some public checkpoints, used by none of their forward passes.
_UNUSED = re.compile(r"model\.(feature_compressor|audio_tower\.audio_tower\.(projector|classifier))\.")


def from_original_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A public checkpoint's weights under our names; what its forward never uses is left out."""
    return {_renamed(name, _PREFIXES): value for name, value in state.items() if not _UNUSED.match(name)}


def to_original_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `from_original_names`."""
    back = tuple((ours, public) for public, ours in _PREFIXES)
    return {_renamed(name, back): value for name, value in state.items()}


def _renamed(name: str, prefixes: tuple[tuple[str, str], ...]) -> str:
    for old, new in prefixes:
        if name.startswith(old):
            return new + name.removeprefix(old)
    raise KeyError(f"{name!r} is no weight of HumanOmni; its parts begin with {', '.join(p for p, _ in prefixes)}")
