"""What a training step holds in memory, per device, worked out without allocating any of it.

Parameters are counted on the meta device. Activations are what autograd really saves when the decoder's own code runs on
fake tensors, for one and for two layers; the rest follows, because layers are alike. Not counted: the allocator's
fragmentation, the library's workspaces (about 1 GB with CUDA), and what attention kernels hold for a moment.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from transformers import Qwen2ForCausalLM

from erv.engine.shared_prefix import shared_prefix_states
from erv.engine.token_logprobs import peak_bytes
from erv.policy.humanomni.config import HumanOmniConfig
from erv.policy.humanomni.model import HumanOmni
from erv.policy.humanomni.projector import VisionProjector
from erv.policy.lora import add_lora

TEXT_TOKENS = 64  # of a prompt, without its media
_ADAM_STATES = 2
_WIDE = torch.float32.itemsize  # what is trained


@dataclass(frozen=True)
class Setup:
    """How a policy is trained. `precision` is Lightning's, `strategy` as in `ranks.strategy`; `lora` as in `load_policy`.

    `prompts` clips per step on one device with `group_size` answers of at most `new_tokens` tokens (1 for SFT); `token_budget`
    trunk tokens a micro-batch, None for all prompts at once. `sampled`: answers are generated first (GRPO). `reference`: a
    frozen copy of the trained parts is kept.
    """

    train: Sequence[str]
    prompts: int
    group_size: int
    new_tokens: int
    token_budget: int | None = None
    sampled: bool = True
    reference: bool = True
    lora: Mapping[str, Any] | None = None
    gradient_checkpointing: bool = False
    dtype: str = "float32"
    precision: str = "32-true"
    strategy: str = "auto"
    devices: int = 1

    @property
    def frozen(self) -> torch.dtype:
        """The type of frozen weights; trained ones are in fp32, with their gradients and optimiser states."""
        kind: torch.dtype = getattr(torch, self.dtype)
        return kind

    @property
    def trains_decoder(self) -> bool:
        """Whether the language model is trained as a whole."""
        return "language_model" in self.train and self.lora is None

    @property
    def arithmetic(self) -> torch.dtype:
        """The type of activations."""
        if self.precision == "bf16-mixed":
            return torch.bfloat16
        return torch.float32 if self.trains_decoder else self.frozen

    @property
    def sharded(self) -> bool:
        """Whether the devices share all but the towers out, with their gradients and states."""
        return self.strategy in ("fsdp2", "deepspeed_z3") and self.devices > 1

    @property
    def masters_apart(self) -> bool:
        """Whether each device has all weights in the type of activations, and its share of what is trained in fp32 (ZeRO-2)."""
        return self.strategy == "deepspeed_z2"


def part_sizes(sizes: HumanOmniConfig, setup: Setup) -> dict[str, tuple[int, int]]:
    """(Parameters, trained parameters) of each part, adapters included."""
    with torch.device("meta"):
        model = HumanOmni(sizes)
        if setup.lora is not None:
            add_lora(model.language_model, dict(setup.lora))
    return model.set_trainable(setup.train).part_sizes()


def prompt_tokens(sizes: HumanOmniConfig) -> int:
    """Positions of a prompt with picture and sound."""
    return sizes.video_tokens + sizes.audio_tokens + TEXT_TOKENS


def estimate(sizes: HumanOmniConfig, setup: Setup) -> dict[str, int]:
    """Bytes on one device by purpose; "peak" is what stays plus the larger of generating and updating."""
    text, parts = sizes.text_config, part_sizes(sizes, setup)
    total, trained = (sum(column) for column in zip(*parts.values(), strict=True))
    towers = parts["vision_tower"][0] + parts["audio_tower"][0]
    share = 1 / setup.devices if setup.sharded or setup.masters_apart else 1.0
    frozen, narrow = setup.frozen.itemsize, setup.arithmetic.itemsize
    apart = frozen * (total - towers - trained) + _WIDE * trained  # from the towers, which stay whole
    prompt = prompt_tokens(sizes)
    row = prompt + setup.group_size * setup.new_tokens
    rows = min(max((setup.token_budget or row * setup.prompts) // row, 1), setup.prompts)
    answers = rows * setup.group_size * setup.new_tokens
    per_token = 2 * text.num_hidden_layers * text.num_key_value_heads * (text.hidden_size // text.num_attention_heads)
    sampled = setup.prompts * (prompt + setup.group_size * setup.new_tokens)
    # a copy that is shared out for itself has nothing in common with the policy but the towers
    weights, reference = frozen * towers + apart * share, (apart if setup.sharded else _WIDE * trained) * share
    if setup.masters_apart:
        weights, reference = total * narrow + trained * _WIDE * share * (narrow < _WIDE), trained * narrow
    stays = {
        "weights": weights,
        "reference": reference * setup.reference,
        "gradients": trained * _WIDE * share,
        "optimiser": _ADAM_STATES * trained * _WIDE * share,
    }
    ends = text.vocab_size * text.hidden_size * (1 if text.tie_word_embeddings else 2) + text.hidden_size
    layer = (parts["language_model"][0] - ends) // text.num_hidden_layers
    at_once = total - towers - (text.num_hidden_layers - 2) * layer  # this layer and the next one
    held = _WIDE if setup.trains_decoder else frozen
    copies = 0 if setup.sharded or setup.masters_apart or narrow == held else narrow * parts["language_model"][0]
    update = {
        "half-precision copies": copies,
        "gathered to update": 2 * narrow * at_once * setup.sharded,  # weights and gradients
        "activations": _activations(sizes, setup, rows, prompt),
        "logits": peak_bytes(answers, text.vocab_size),
    }
    generate = {
        "gathered to generate": narrow * (total - towers) * setup.sharded * setup.sampled,
        "kv cache": per_token * narrow * sampled * setup.sampled,
        "sampling": 3 * 4 * setup.prompts * setup.group_size * text.vocab_size * setup.sampled,
    }
    peak = sum(stays.values()) + max(sum(update.values()), sum(generate.values()))
    return {name: int(value) for name, value in {**stays, **update, **generate, "peak": peak}.items()}


def _activations(sizes: HumanOmniConfig, setup: Setup, rows: int, prompt: int) -> int:
    """Bytes that autograd keeps for a micro-batch of `rows` prompts with their answers."""
    layers = sizes.text_config.num_hidden_layers
    one, two = (_trunk(sizes, setup, rows, prompt, count) for count in (1, 2))
    layer, ends = two - one, 2 * one - two  # the last layer runs on fewer positions, so `ends` may be negative
    if setup.gradient_checkpointing:  # the inputs of all layers, and one layer at a time as a whole
        tokens = rows * (prompt + setup.group_size * setup.new_tokens)
        trunk = ends + layer + layers * tokens * sizes.text_config.hidden_size * setup.arithmetic.itemsize
    else:
        trunk = ends + layers * layer
    return trunk + _projectors(sizes, setup, rows)


def _trunk(sizes: HumanOmniConfig, setup: Setup, rows: int, prompt: int, layers: int) -> int:
    """Bytes kept by the decoder with `layers` layers; embeddings and head are counted elsewhere."""
    values = {**sizes.text_config.to_dict(), "num_hidden_layers": layers, "layer_types": None, "vocab_size": 1}
    config = sizes.text_config.__class__(**{**values, "pad_token_id": None})

    def make() -> nn.Module:
        model = Qwen2ForCausalLM(config).train().requires_grad_("language_model" in setup.train)
        if setup.lora is not None:
            add_lora(model, dict(setup.lora))
            for name, parameter in model.named_parameters():
                parameter.requires_grad_("lora_" in name)
        return model

    def forward(model: Any) -> None:
        sizes = (prompt, setup.group_size * setup.new_tokens)
        prompts, own = (torch.zeros(rows, size, config.hidden_size, requires_grad=True) for size in sizes)
        shared_prefix_states(model.model, prompts, None, own, setup.group_size)

    return _saved(make, forward, setup.arithmetic)


def _projectors(sizes: HumanOmniConfig, setup: Setup, rows: int) -> int:
    if "mm_projector" not in setup.train:
        return 0
    features = sizes.vision_config.hidden_size

    def forward(model: nn.Module) -> None:
        model(torch.zeros(rows, sizes.num_frames, sizes.grid**2, features))

    width = sizes.text_config.hidden_size
    return _saved(lambda: VisionProjector(features, width, sizes.mm_projector_type), forward, setup.arithmetic)


def _saved(make: Callable[[], nn.Module], forward: Callable[[nn.Module], None], dtype: torch.dtype) -> int:
    """Bytes of the distinct tensors, weights aside, that autograd saves during `forward`.

    The model is made on the meta device and run as if it were on the CPU, whose attention kernels keep as little as those
    of a GPU; the meta device's own keep the whole matrix of weights.
    """
    kept: dict[int, Any] = {}
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device("meta"):
            model = make()
        mode = FakeTensorMode()
        for module in model.modules():
            for name, weight in module._parameters.items():
                if weight is not None:
                    module._parameters[name] = nn.Parameter(_fake(mode, weight), requires_grad=weight.requires_grad)
            for name, buffer in module._buffers.items():
                if buffer is not None:
                    module._buffers[name] = _fake(mode, buffer)
        with mode:
            own = {p.untyped_storage()._cdata for p in model.parameters()}

            def keep(tensor: Tensor) -> Tensor:
                storage = tensor.untyped_storage()
                if storage._cdata not in own:
                    kept[storage._cdata] = storage  # held, so that its address is not given to another
                return tensor

            with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
                forward(model)
    finally:
        torch.set_default_dtype(before)
    return sum(storage.nbytes() for storage in kept.values())


def _fake(mode: FakeTensorMode, tensor: Tensor) -> FakeTensor:
    return FakeTensor(mode, tensor.detach(), torch.device("cpu"))
