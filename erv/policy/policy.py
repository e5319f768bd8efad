"""A policy: a model and its processor, loaded from one folder and saved to one, whatever its family."""

from __future__ import annotations

import copy
import importlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

import torch
from torch import Tensor

from erv.policy.base import PolicyFamily, PolicyModel, PolicyProcessor, Preprocessing, Stage
from erv.policy.checkpoint import locate
from erv.policy.lora import add_lora
from erv.utils.tensors import tensors_sha256

M = TypeVar("M")

# model_type of a config.json (or of policy.config) -> the family's module, see `erv.policy.base.PolicyFamily`
FAMILIES = {
    "humanomni": "erv.policy.humanomni.family",  # folders written by erv.train
    "HumanOmni_qwen2": "erv.policy.humanomni.family",  # HumanOmni, R1-Omni and ERV as they were released
}
DEFAULT_FAMILY = "humanomni"
# What the paper trains: all of the default family but its towers and BERT.
DEFAULT_TRAIN = ("language_model", "mm_projector", "audio_projector", "bert_gate")
Attention = Literal["sdpa", "flash_attention_2", "eager"]
Dtype = Literal["float32", "bfloat16", "float16"]


@dataclass(frozen=True)
class Policy:
    """A model and the processor that turns clips into its inputs."""

    model: PolicyModel
    processor: PolicyProcessor

    def at(self, stage: Stage) -> Policy:
        """The same model with the processor as `stage` uses it."""
        return replace(self, processor=self.processor.at(stage))

    def encode(self, media: Sequence[Mapping[str, Tensor]], batch_size: int | None = None) -> list[dict[str, Tensor]]:
        """Tower features of what `processor.tensors` returned for each clip, see `PolicyModel.encode`."""
        return self.model.encode(media, batch_size)

    def towers_sha256(self) -> str:
        """The hash of the towers' weights, for the key of the feature cache."""
        return tensors_sha256(self.model.tower_state())

    def sha256(self) -> str:
        """The hash of all weights."""
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
    """Load a policy from a folder or hub id, or make one with random weights; in eval mode.

    The keyword arguments are the keys of `policy` in a config. The family is chosen by `model_type` in the checkpoint's
    config.json, or in `config`.

    Args:
        checkpoint: a folder written by `save_policy`, or a public checkpoint's folder or hub id. None for random weights.
        config: sizes of a model with random weights, the keyword arguments of its config class (HumanOmniConfig); the
            vocabulary sizes are the tokenizers'. With a checkpoint, whose sizes count, it is not read.
        train: the trained parts; all else is frozen.
        question: the user's text in the prompt; None for the checkpoint's, else R1-Omni's.
        preprocessing: "consistent" or "paper"; None for the checkpoint's, else "consistent".
        dtype: type of the weights; training converts those that it changes to fp32 (`PolicyModel.widen_trained`).
        attention: attention implementation of the language model in transformers' own forward pass.
        gradient_checkpointing: recompute the language model's activations in the backward pass.
        lora: keyword arguments of peft.LoraConfig, `{}` for the defaults here: adapters on all linear layers of the language
            model, which are then what is trained of it. None for none.
        upstream: other sources of the models that a public checkpoint is made of, {"vision_tower", "audio_tower",
            "bert_model": folder or hub id}.
        texts: rationales, answers and prompts on which a policy without a checkpoint trains its tokenizers.
    """
    torch_dtype = getattr(torch, dtype)
    if checkpoint is None:
        if config is None or not texts:
            raise ValueError("a policy without policy.checkpoint needs policy.config and texts for its tokenizers")
        family = _family(config.get("model_type"))
        model, processor = family.create(config, texts, question, preprocessing, torch_dtype)
    else:
        folder = locate(checkpoint)
        family = _family(_model_type(folder))
        model, processor = family.load(folder, question, preprocessing, torch_dtype, upstream or {})
    language_model = model.language_model
    try:
        language_model.set_attn_implementation(attention)
    except ImportError as error:
        raise ValueError(
            f"policy.attention={attention} cannot be used here ({error}); install it, or set sdpa"
        ) from error
    if lora is not None:
        add_lora(language_model, lora)
    if gradient_checkpointing:
        # non-reentrant: the reentrant kind needs an input with gradient, which frozen projectors do not give
        language_model.gradient_checkpointing_enable({"use_reentrant": False})
    model.set_trainable(train).eval()
    return Policy(model, processor)


def save_policy(policy: Policy, folder: str | Path, max_shard_size: str = "5GB") -> None:
    """Write weights, sizes, tokenizers and preprocessing so that `load_policy(folder)` makes the same policy.

    Adapters are merged into the weights.
    """
    family = _family(policy.model.config.model_type)
    family.save(policy.model, policy.processor, Path(folder), max_shard_size)


def export_policy(policy: Policy, folder: str | Path, max_shard_size: str = "5GB") -> None:
    """Write the policy in its public format; HumanOmni's is read by the code of HumanOmni, R1-Omni and ERV."""
    family = _family(policy.model.config.model_type)
    family.export(policy.model, policy.processor, Path(folder), max_shard_size)


def frozen_copy(model: M) -> M:
    """Copy a model (any nn.Module) for use as the reference: never trained, in eval mode.

    Frozen weights are shared with the original, not copied, so with LoRA only the adapters are copied.
    """
    module: Any = model
    shared = [p for p in module.parameters() if not p.requires_grad]
    reference = copy.deepcopy(module, {id(p): p for p in shared})
    return cast("M", reference.requires_grad_(False).eval())


def _family(model_type: str | None) -> PolicyFamily:
    """The module of a family, imported on first use. The default one for an unknown type: its `load` says what it reads."""
    module = FAMILIES.get(model_type or DEFAULT_FAMILY, FAMILIES[DEFAULT_FAMILY])
    return cast("PolicyFamily", importlib.import_module(module))


def _model_type(folder: Path) -> str | None:
    file = folder / "config.json"
    return json.loads(file.read_text()).get("model_type") if file.is_file() else None
