"""What a training step holds in memory, per device, worked out without allocating any of it.

Parameters are counted on the meta device. What an update adds to them is the peak of what is alive while one micro-batch's
forward and backward pass runs through the production code on fake tensors, which have sizes and no content. Not counted: the
allocator's fragmentation, the library's workspaces (about 1 GB with CUDA), and towers that are trained.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from erv.engine.attention import attend_backward
from erv.engine.layers import trunk_and_head
from erv.engine.shared_prefix import stream_states
from erv.engine.token_logprobs import token_logps
from erv.policy.humanomni.config import HumanOmniConfig
from erv.policy.humanomni.model import HumanOmni
from erv.policy.lora import add_lora

TEXT_TOKENS = 64  # of a prompt, without its media
_ADAM_STATES = 2
_WIDE = torch.float32.itemsize  # what is trained


@dataclass(frozen=True)
class Setup:
    """How a policy is trained. `precision` is Lightning's, `strategy` as in `ranks.strategy`; `lora` as in `load_policy`.

    `prompts` clips per step on one device with `group_size` answers of at most `new_tokens` tokens (1 for SFT); `token_budget`
    trunk tokens a micro-batch, None for all prompts at once. `sampled`: answers are generated first (GRPO). `reference`: a
    frozen copy of the trained parts is kept. `gpu`: attention over shared prompts forms its scores, as it does but on a CPU.
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
    gpu: bool = False

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
    def mixed(self) -> bool:
        """Whether autocast computes in bf16."""
        return self.precision == "bf16-mixed"

    @property
    def arithmetic(self) -> torch.dtype:
        """The type that layers compute in."""
        if self.mixed:
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
    return _without_storage(sizes, setup).part_sizes()


def prompt_tokens(sizes: HumanOmniConfig) -> int:
    """Positions of a prompt with picture and sound."""
    return sizes.video_tokens + sizes.audio_tokens + TEXT_TOKENS


def estimate(sizes: HumanOmniConfig, setup: Setup) -> dict[str, int]:
    """Bytes on one device by purpose; "peak" is what stays plus the larger of generating and updating.

    "activations" is all that an update adds to what stays: what autograd keeps, low-precision copies of weights, logits,
    and gradients on their way to the weights.
    """
    model = _without_storage(sizes, setup)
    text, parts = sizes.text_config, model.part_sizes()
    total, trained = (sum(column) for column in zip(*parts.values(), strict=True))
    towers = parts["vision_tower"][0] + parts["audio_tower"][0]
    share = 1 / setup.devices if setup.sharded or setup.masters_apart else 1.0
    frozen, narrow = setup.frozen.itemsize, setup.arithmetic.itemsize
    apart = frozen * (total - towers - trained) + _WIDE * trained  # from the towers, which stay whole
    row = prompt_tokens(sizes) + setup.group_size * setup.new_tokens
    rows = min(max((setup.token_budget or row * setup.prompts) // row, 1), setup.prompts)
    per_token = 2 * text.num_hidden_layers * text.num_key_value_heads * (text.hidden_size // text.num_attention_heads)
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
    update = {
        "gathered to update": 2 * narrow * at_once * setup.sharded,  # weights and gradients
        "activations": _added_by_update(model, setup, rows),
        "attention scores": _scores(sizes, setup, rows) if setup.gpu and setup.sampled else 0,
    }
    generate = {
        "gathered to generate": narrow * (total - towers) * setup.sharded * setup.sampled,
        "kv cache": per_token * narrow * row * setup.prompts * setup.sampled,
        "sampling": 3 * 4 * setup.prompts * setup.group_size * text.vocab_size * setup.sampled,
    }
    peak = sum(stays.values()) + max(sum(update.values()), sum(generate.values()))
    return {name: int(value) for name, value in {**stays, **update, **generate, "peak": peak}.items()}


def _without_storage(sizes: HumanOmniConfig, setup: Setup) -> HumanOmni:
    """The policy on the meta device."""
    with torch.device("meta"):
        model = HumanOmni(sizes)
        if setup.lora is not None:
            add_lora(model.language_model, dict(setup.lora))
    return model.set_trainable(setup.train)


def _added_by_update(model: HumanOmni, setup: Setup, rows: int) -> int:
    """Bytes that a micro-batch of `rows` prompts with their answers adds to weights and gradients at its peak.

    `model`, on the meta device, becomes one of fake tensors. It runs as if on the CPU, whose attention kernels keep as little
    as those of a GPU; the meta device's own keep the whole matrix of weights.
    """
    apart = setup.sharded or setup.masters_apart  # fp32 weights and gradients then lie elsewhere, and are counted there
    model.to(setup.arithmetic if apart else setup.frozen)
    if not apart:
        model.widen_trained()
    if setup.gradient_checkpointing:
        model.language_model.gradient_checkpointing_enable({"use_reentrant": False})
    mode = FakeTensorMode()
    _to_fake(model.train(), mode)
    autocast = torch.autocast("cpu", torch.bfloat16, enabled=setup.mixed)
    with mode, _Alive(p.untyped_storage() for p in model.parameters()) as alive:
        for parameter in model.parameters():  # the gradient of the step or micro-batch before
            parameter.grad = torch.empty_like(parameter) if parameter.requires_grad else None
        gradients = alive.bytes
        if setup.sampled:
            if rows == setup.prompts and not apart:  # GRPO forgets it before the first micro-batch
                model.zero_grad()
            with autocast:
                _grpo_loss(model, setup, rows).backward()
        else:
            with autocast:
                loss = _sft_loss(model, setup, rows)
            if not apart:  # Lightning forgets it between the passes
                model.zero_grad()
            loss.backward()
    return alive.peak - gradients


def _prompts(model: HumanOmni, rows: int) -> Tensor:
    """Embeddings of `rows` prompts with picture and sound."""
    sizes, embed = model.config, model.language_model.get_input_embeddings()
    projector, audio = (next(m.parameters()).dtype for m in (model.mm_projector, model.audio_projector))
    video = torch.empty(rows, sizes.num_frames, sizes.grid**2, sizes.vision_config.hidden_size, dtype=projector)
    sound = torch.empty(rows, sizes.audio_tokens, sizes.audio_config.d_model, dtype=audio)
    text = embed(torch.empty(rows, TEXT_TOKENS, dtype=torch.long))
    media = model.fuse(video, torch.empty(rows, 3)), model.audio_projector(sound)
    return torch.cat([*(tokens.to(text.dtype) for tokens in media), text], dim=1)


def _grpo_loss(model: HumanOmni, setup: Setup, rows: int) -> Tensor:
    """As `erv.engine.logprobs.completion_logps`, whose shapes depend on what is in its tensors."""
    trunk, head = trunk_and_head(model.language_model)
    prompts, group, fed = _prompts(model, rows), setup.group_size, setup.new_tokens - 1  # the last token predicts none
    answers = model.language_model.get_input_embeddings()(torch.empty(rows, group * fed, dtype=torch.long))
    states = stream_states(trunk, prompts, None, answers, group)
    first = states[:, :1, None].expand(rows, group, 1, -1)
    states = torch.cat([first, states[:, 1:].view(rows, group, fed, -1)], dim=2).flatten(0, 2)
    targets = torch.empty(len(states), dtype=torch.long)
    logps, _ = token_logps(states[targets], head, targets, with_entropy=True)
    return logps.sum()


def _sft_loss(model: HumanOmni, setup: Setup, rows: int) -> Tensor:
    """As `erv.training.sft.SFT.loss`."""
    prompts = _prompts(model, rows)
    answers = model.language_model.get_input_embeddings()(torch.empty(rows, setup.new_tokens, dtype=torch.long))
    embeds = torch.cat([prompts, answers], dim=1)
    mask = torch.empty(embeds.shape[:2], dtype=torch.long)
    hidden = model.language_model.get_decoder()(inputs_embeds=embeds, attention_mask=mask).last_hidden_state
    predicting = hidden[:, -setup.new_tokens - 1 : -1].flatten(0, 1)
    logits = model.language_model.lm_head(predicting).float()
    return F.cross_entropy(logits, torch.empty(len(logits), dtype=torch.long), reduction="none").sum()


def _scores(sizes: HumanOmniConfig, setup: Setup, rows: int) -> int:
    """Bytes that a GPU holds for a moment in the backward pass of the answers' attention over their prompts."""
    text = sizes.text_config
    heads, width = text.num_attention_heads, text.hidden_size // text.num_attention_heads
    with torch.device("meta"), _Alive() as alive:
        query = torch.empty(rows, heads, setup.group_size * setup.new_tokens, width, dtype=setup.arithmetic)
        key = torch.empty(rows, text.num_key_value_heads, prompt_tokens(sizes), width, dtype=setup.arithmetic)
        lse = torch.empty(query.shape[:3])
        given = alive.bytes
        attend_backward(query, query, key, key, query, lse, 1.0)
    return alive.peak - given


class _Alive(TorchDispatchMode):
    """Counts the bytes of tensors made under it: those alive, and their peak. Views, and what was `there` before, add nothing."""

    def __init__(self, there: Iterable[torch.UntypedStorage] = ()) -> None:
        super().__init__()
        self.bytes = self.peak = 0
        self._storages = {storage._cdata for storage in there}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor):
                self._count(tensor.untyped_storage())
        return made

    def _count(self, storage: torch.UntypedStorage) -> None:
        place, size = storage._cdata, storage.nbytes()
        if place not in self._storages:
            self._storages.add(place)
            self.bytes += size
            self.peak = max(self.peak, self.bytes)
            weakref.finalize(storage, self._forget, place, size)

    def _forget(self, place: int, size: int) -> None:
        self._storages.discard(place)
        self.bytes -= size


def _to_fake(module: nn.Module, mode: FakeTensorMode) -> None:
    """Make fake tensors on the CPU of all weights, tied ones tied, and buffers of a `module` on the meta device."""
    made: dict[int, nn.Parameter] = {}
    for part in module.modules():
        for name, weight in part._parameters.items():
            if weight is not None:
                if id(weight) not in made:
                    made[id(weight)] = nn.Parameter(_fake(mode, weight), requires_grad=weight.requires_grad)
                part._parameters[name] = made[id(weight)]
        for name, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[name] = _fake(mode, buffer)


def _fake(mode: FakeTensorMode, tensor: Tensor) -> FakeTensor:
    return FakeTensor(mode, tensor.detach(), torch.device("cpu"))
