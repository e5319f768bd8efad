"""Weights on disk: where they lie, what they are called, and whether they are all there.

Spec: policy.md section 2. Our names are the module names of `HumanOmni`; the public ones hang everything under `model.`.
"""

from __future__ import annotations

import json
import logging
import pickle
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from huggingface_hub import save_torch_state_dict, snapshot_download
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoTokenizer, GenerationConfig, PretrainedConfig, PreTrainedTokenizerBase
from transformers.utils import logging as library_logging

from erv.policy.humanomni.backbones import hub_id
from erv.policy.humanomni.config import HumanOmniConfig
from erv.policy.humanomni.model import HumanOmni

# (ours, public as written, public as read); the first that fits counts. SigLIP lost its inner "vision_model." in
# transformers 5, so that newer files lack it.
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
# In some public checkpoints, used by none of their forward passes: HumanOmni's own compressor, Whisper's classification
# head, and buffers that older versions of transformers saved and newer ones compute.
_UNUSED = re.compile(
    r"model\.feature_compressor\.|model\.audio_tower\.audio_tower\.(projector|classifier)\.|"
    r".*\.(position_ids|rotary_emb\.inv_freq)$"
)
_FILES = (
    ("model.safetensors", "model.safetensors.index.json"),
    ("pytorch_model.bin", "pytorch_model.bin.index.json"),
)
_TEXT_FILES = ["*.json", "*.txt", "*.jinja", "*.model"]


_log = logging.getLogger(__name__)


class CheckpointError(ValueError):
    """A checkpoint that is not there, not whole, or not what its config says."""


def locate(reference: str | Path, weights: bool = True) -> Path:
    """The folder of a checkpoint: a folder of this machine as it is, anything else as a hub id.

    A hub snapshot is fetched once into the hub's own cache; safetensors are preferred to torch files. Without `weights`
    only configs and tokenizers are fetched.
    """
    if Path(reference).is_dir():
        return Path(reference)
    name = hub_id(str(reference))
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise CheckpointError(f"{reference} is neither a folder nor a hub id such as StarJiaxing/R1-Omni-0.5B")
    try:
        folder = Path(snapshot_download(name, allow_patterns=[*_TEXT_FILES, *(["*.safetensors"] if weights else [])]))
        if weights and not _weight_files(folder):
            folder = Path(snapshot_download(name, allow_patterns=[*_TEXT_FILES, "*.bin"]))
    except (OSError, ValueError) as error:  # the hub's own errors are OSErrors, a malformed id a ValueError
        raise CheckpointError(
            f"{name} is no folder here and cannot be had from the hub ({_first_line(error)}); download it on a machine "
            "with access and give its folder instead"
        ) from error
    return folder


def read_state(folder: Path) -> dict[str, Tensor]:
    """All weights of a folder by their names in the files: safetensors or torch files, in one piece or in shards."""
    files = _weight_files(folder)
    if not files:
        raise CheckpointError(f"{folder} holds no weights; it needs {' or '.join(f'{a} / {b}' for a, b in _FILES)}")
    state: dict[str, Tensor] = {}
    for file in files:
        try:
            if file.suffix == ".safetensors":
                state |= load_file(file)
            else:  # weights_only: a torch file from a stranger must not run code
                state |= torch.load(file, map_location="cpu", weights_only=True)
        except (SafetensorError, pickle.UnpicklingError, RuntimeError) as error:
            raise CheckpointError(
                f"{file} cannot be read as weights alone ({_first_line(error)}); fetch it again, from a source you trust"
            ) from error
    return state


def _weight_files(folder: Path) -> list[Path]:
    for whole, index in _FILES:
        if (folder / whole).is_file():
            return [folder / whole]
        if (folder / index).is_file():
            names = sorted(set(json.loads((folder / index).read_text())["weight_map"].values()))
            outside = [name for name in names if Path(name).name != name]
            if outside:
                raise CheckpointError(f"{folder / index} names files outside its folder: {', '.join(outside)}")
            absent = [name for name in names if not (folder / name).is_file()]
            if absent:
                raise CheckpointError(f"{folder / index} names shards that are not there: {', '.join(absent)}")
            return [folder / name for name in names]
    return []


def from_original_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A public checkpoint's weights under our names; what its forward never uses is left out."""
    return {our_name(name): value for name, value in state.items() if not _UNUSED.match(name)}


def to_original_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `from_original_names`."""
    return {original_name(name): value for name, value in state.items()}


def our_name(name: str) -> str:
    """Our name of a public weight."""
    for ours, _, pattern in _PREFIXES:
        if found := re.match(pattern, name):
            return ours + name[found.end() :]
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

    Weights are named as the file names them: by their public names when `public`.
    """
    spoken = original_name if public else str
    missing = [name for name in expected if name not in state]
    unexpected = [name for name in state if name not in expected]
    misshapen = [name for name in state if name in expected and state[name].shape != expected[name].shape]
    problems = [
        *_listed("missing", map(spoken, missing)),
        *_listed("unexpected", map(spoken, unexpected)),
        *_listed(
            "of another shape than the config says",
            (f"{spoken(n)} {tuple(state[n].shape)}, not {tuple(expected[n].shape)}" for n in misshapen),
        ),
    ]
    if problems:
        raise CheckpointError("\n  ".join([f"{source} does not fit its config:", *problems]))


def build(
    config: HumanOmniConfig, state: Mapping[str, Tensor], dtype: torch.dtype, source: str, public: bool
) -> HumanOmni:  # fmt: skip
    """The model with exactly the weights `state` (our names), in `dtype`; CheckpointError where they do not fit."""
    with torch.device("meta"):
        expected = HumanOmni(config).state_dict()
    if config.text_config.tie_word_embeddings:
        expected.pop("language_model.lm_head.weight")
    check_state(state, expected, source, public)
    library_logging.disable_progress_bar()  # it counts tensors, not what a user waits for
    model: HumanOmni = HumanOmni.from_pretrained(None, config=config, state_dict=dict(state), dtype=dtype)
    for parameter in model.parameters():
        # Off the mapped file: it may be replaced on disk, and its odd alignment changes last bits of matrix products.
        parameter.data = parameter.data.clone()
    return model


def read_generation_config(folder: Path, model: HumanOmni) -> None:
    """Give the language model the generation config of `folder` where there is one."""
    if not (folder / "generation_config.json").is_file():
        return
    found = GenerationConfig.from_pretrained(folder)
    model.language_model.generation_config = found
    if found.repetition_penalty not in (None, 1.0):
        _log.warning(
            "%s asks for repetition_penalty=%s, which HumanOmni.generate applies; answers in training and evaluation are "
            "drawn from the policy as it is",
            folder / "generation_config.json", found.repetition_penalty,
        )  # fmt: skip


def tokenizer_of(folder: Path, config: PretrainedConfig | None = None) -> PreTrainedTokenizerBase:
    """The tokenizer in `folder`; `config` stands in for a config.json there that the library does not know."""
    try:
        return AutoTokenizer.from_pretrained(folder, config=config, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"{folder} holds no tokenizer that can be read ({_first_line(error)})") from error


def _listed(what: str, names: Iterable[str]) -> list[str]:
    listed = list(names)
    return [f"{what} ({len(listed)}): {', '.join(listed)}"] if listed else []


def write_state(state: Mapping[str, Tensor], folder: Path, max_shard_size: str = "5GB") -> None:
    """Write weights as safetensors, with an index when they need several files of at most `max_shard_size`."""
    folder.mkdir(parents=True, exist_ok=True)
    contiguous = {name: value.detach().contiguous() for name, value in state.items()}
    save_torch_state_dict(contiguous, folder, max_shard_size=max_shard_size)


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
