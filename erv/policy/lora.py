"""LoRA on the language model, through peft: adapters are added in place, and merged when weights are written."""

from __future__ import annotations

from typing import Any

from peft import LoraConfig
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from transformers import PreTrainedModel

# Every linear layer of every decoder layer; the released option left out the last ones and the MLPs (original-defects 18).
TARGET_MODULES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
# Without dropout: GRPO compares the log-probs of two passes.
_DEFAULTS = {"r": 16, "lora_alpha": 32, "lora_dropout": 0.0, "bias": "none"}


def add_lora(language_model: PreTrainedModel, settings: dict[str, Any]) -> None:
    """Add adapters to the linear layers of `language_model`; `settings` are keyword arguments of peft.LoraConfig."""
    try:
        config = LoraConfig(**{**_DEFAULTS, "target_modules": list(TARGET_MODULES), **settings})
    except TypeError as error:
        raise ValueError(
            f"policy.lora holds keyword arguments of peft.LoraConfig, such as r and lora_alpha: {error}"
        ) from error
    language_model.add_adapter(config)


def merged_state(model: nn.Module) -> dict[str, Tensor]:
    """The weights of `model` with its adapters added, W + (alpha / r) B A, under the names they have without adapters.

    The model itself stays as it is, so that training can go on.
    """
    state = {n.replace(".base_layer.", "."): v for n, v in model.state_dict().items() if ".lora_" not in n}
    for name, module in model.named_modules():
        if isinstance(module, LoraLayer):
            weight = state[f"{name}.weight"]
            for adapter in module.active_adapters:
                weight = weight + module.get_delta_weight(adapter).to(weight.dtype)
            state[f"{name}.weight"] = weight
    return state
