"""Files of a checkpoint, whatever its family: finding its folder, reading and writing weights, reading its tokenizer."""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from huggingface_hub import save_torch_state_dict, snapshot_download
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoTokenizer, PretrainedConfig, PreTrainedTokenizerBase

from erv.errors import UserError
from erv.utils.io import obey_umask

# (weights in one file, index of weights in shards); safetensors first
_WEIGHT_FILES = (
    ("model.safetensors", "model.safetensors.index.json"),
    ("pytorch_model.bin", "pytorch_model.bin.index.json"),
)
_CONFIG_FILES = ["*.json", "*.txt", "*.jinja", "*.model"]  # configs and tokenizers


class CheckpointError(UserError, ValueError):
    """A checkpoint that cannot be found, is not whole, or is not what its config says."""


def locate(reference: str | Path, weights: bool = True) -> Path:
    """Find the folder of a checkpoint: a local folder as it is, anything else as a hub id.

    A hub snapshot is fetched once into the hub's own cache; safetensors are preferred to torch files. Without `weights`
    only configs and tokenizers are fetched.
    """
    if Path(reference).is_dir():
        return Path(reference)
    name = str(reference)
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise CheckpointError(f"{reference} is neither a folder nor a hub id such as StarJiaxing/R1-Omni-0.5B")
    try:
        folder = Path(snapshot_download(name, allow_patterns=[*_CONFIG_FILES, *(["*.safetensors"] if weights else [])]))
        if weights and not _weight_files(folder):
            folder = Path(snapshot_download(name, allow_patterns=[*_CONFIG_FILES, "*.bin"]))
    except (OSError, ValueError) as error:  # the hub's own errors are OSErrors, a malformed id is a ValueError
        raise CheckpointError(
            f"{name} is no folder here and cannot be had from the hub ({_first_line(error)}); download it on a machine "
            "with access and give its folder instead"
        ) from error
    return folder


def read_state(folder: Path) -> dict[str, Tensor]:
    """Read all weights of a folder by their names in the files: safetensors or torch files, in one piece or in shards."""
    files = _weight_files(folder)
    if not files:
        raise CheckpointError(
            f"{folder} holds no weights; it needs {' or '.join(f'{whole} / {index}' for whole, index in _WEIGHT_FILES)}"
        )
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


def write_state(state: Mapping[str, Tensor], folder: Path, max_shard_size: str = "5GB") -> None:
    """Write weights as safetensors, with an index when they need several files of at most `max_shard_size`."""
    folder.mkdir(parents=True, exist_ok=True)
    contiguous = {name: value.detach().contiguous() for name, value in state.items()}  # safetensors takes no other
    save_torch_state_dict(contiguous, folder, max_shard_size=max_shard_size)
    obey_umask(folder.glob("model*.safetensors"))


def read_tokenizer(folder: Path, config: PretrainedConfig | None = None) -> PreTrainedTokenizerBase:
    """Read the tokenizer of a folder; `config` stands in for a config.json of a model that transformers does not know."""
    try:
        # trust_remote_code: a checkpoint must not run code
        return AutoTokenizer.from_pretrained(folder, config=config, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"{folder} holds no tokenizer that can be read ({_first_line(error)})") from error


def _weight_files(folder: Path) -> list[Path]:
    """The files that hold the weights of a folder; none when it has none."""
    for whole, index in _WEIGHT_FILES:
        if (folder / whole).is_file():
            return [folder / whole]
        if (folder / index).is_file():
            names = sorted(set(json.loads((folder / index).read_text())["weight_map"].values()))
            # an index from a stranger must not name files elsewhere
            if outside := [name for name in names if Path(name).name != name]:
                raise CheckpointError(f"{folder / index} names files outside its folder: {', '.join(outside)}")
            if absent := [name for name in names if not (folder / name).is_file()]:
                raise CheckpointError(f"{folder / index} names shards that are not there: {', '.join(absent)}")
            return [folder / name for name in names]
    return []


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
