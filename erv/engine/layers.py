"""A decoder's layers run one by one, so that attention can be ours and positions that nobody reads can be left out.

Everything but attention and rotary embedding is the decoder's own modules, adapters and gradient checkpointing included.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx
from transformers import PreTrainedModel
from transformers.activations import SiLUActivation
from transformers.models.llama.modeling_llama import LlamaDecoderLayer
from transformers.models.mistral.modeling_mistral import MistralDecoderLayer
from transformers.models.qwen2.modeling_qwen2 import Qwen2DecoderLayer
from transformers.models.qwen3.modeling_qwen3 import Qwen3DecoderLayer

# x + attention(norm(x)), then x + down(silu(gate(norm(x))) * up(norm(x))); query and key are rotated by halves of a head
KNOWN = (Qwen2DecoderLayer, Qwen3DecoderLayer, LlamaDecoderLayer, MistralDecoderLayer)

RUN = "run_between"  # a layer's own way to be run by `run_layers`, if it has one

Attention = Callable[[int, Tensor, Tensor, Tensor], Tensor]
Rows = Callable[[Tensor], Tensor]


def is_known(decoder: PreTrainedModel) -> bool:
    """Whether `run_layers` computes what this decoder does: its layers are of a known kind, with full attention."""
    layers = getattr(decoder.get_decoder(), "layers", ())
    return len(layers) > 0 and all(
        any(type(layer).forward is kind.forward for kind in KNOWN)  # also that of a subclass with hooks alone
        and getattr(layer.self_attn, "sliding_window", None) is None
        and isinstance(layer.mlp.act_fn, nn.SiLU | SiLUActivation)
        for layer in layers
    )


def run_layers(trunk: Any, hidden: Tensor, attention: Attention, read: Rows) -> Tensor:
    """Final hidden states of those positions that are read.

    hidden: embeddings `[..., T, D]`. attention: (layer, query `[..., Q, H, d]`, key and value `[..., T, KV, d]`, not yet
    rotated) -> `[..., Q, H, d]`. read: takes the positions that are wanted in the end out of `[..., T, D]`; the last layer
    needs the others for keys and values only.
    """
    layers = list(trunk.layers)
    for index, layer in enumerate(layers):
        own = getattr(layer, RUN, None) or partial(_run_layer, layer)
        run = partial(own, partial(attention, index), read if index == len(layers) - 1 else None)
        if layer.gradient_checkpointing and layer.training:
            hidden = layer._gradient_checkpointing_func(run, hidden)
        else:
            hidden = run(hidden)
    final: Tensor = trunk.norm(hidden)
    return final


def expose(layer: Any) -> None:
    """Give `layer` its way to be run as a method that others can put hooks on."""
    setattr(layer, RUN, partial(_run_layer, layer))


def rotate(states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding of `[..., T, H, d]` with cos and sin `[..., T, d]`; with -sin its inverse, and its gradient."""
    half = states.shape[-1] // 2
    cos, sin = cos.unsqueeze(-2), sin.unsqueeze(-2)
    rotated = states * cos
    rotated[..., :half].addcmul_(states[..., half:], sin[..., :half], value=-1)
    rotated[..., half:].addcmul_(states[..., :half], sin[..., half:])
    return rotated


def _run_layer(
    layer: Any, attention: Callable[[Tensor, Tensor, Tensor], Tensor], read: Rows | None, hidden: Tensor
) -> Tensor:
    attn, mlp = layer.self_attn, layer.mlp
    normed = _norm(layer.input_layernorm, hidden)
    asking = normed
    if read is not None:
        hidden, asking = read(hidden), read(normed)
    query, key, value = (
        project(states).unflatten(-1, (-1, attn.head_dim))
        for project, states in ((attn.q_proj, asking), (attn.k_proj, normed), (attn.v_proj, normed))
    )
    if hasattr(attn, "q_norm"):
        query, key = attn.q_norm(query), attn.k_norm(key)
    hidden = hidden + attn.o_proj(attention(query, key, value).flatten(-2))
    normed = _norm(layer.post_attention_layernorm, hidden)
    updated: Tensor = hidden + mlp.down_proj(_SwiGLU.apply(mlp.gate_proj(normed), mlp.up_proj(normed)))
    return updated


def _norm(module: Any, hidden: Tensor) -> Tensor:
    """RMS norm by the decoder's own module where no gradient is wanted or precision is lower than fp32."""
    if hidden.dtype != torch.float32 or not torch.is_grad_enabled():
        normed: Tensor = module(hidden)
        return normed
    return _RmsNorm.apply(hidden, module.weight, module.variance_epsilon)


class _RmsNorm(torch.autograd.Function):
    """x / rms(x) * weight, `[..., D]`; a third of the passes over memory that the same in single steps takes."""

    @staticmethod
    def forward(ctx: FunctionCtx, hidden: Tensor, weight: Tensor, eps: float) -> Tensor:
        power = torch.linalg.vector_norm(hidden, dim=-1, keepdim=True).square_()
        inverse = power.div_(hidden.shape[-1]).add_(eps).rsqrt_()
        ctx.save_for_backward(hidden, weight, inverse)
        return (hidden * inverse).mul_(weight)

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor, Tensor | None, None]:
        """With y = x / rms(x): dx = (g w - y mean(g w y)) / rms(x), dw = sum g y."""
        hidden, weight, inverse = ctx.saved_tensors  # type: ignore[attr-defined]
        unit = hidden * inverse
        along = gradient * unit
        on_weight = along.flatten(0, -2).sum(0) if ctx.needs_input_grad[1] else None  # type: ignore[attr-defined]
        mean = (along @ weight / hidden.shape[-1]).unsqueeze(-1)
        return (gradient * weight).sub_(unit.mul_(mean)).mul_(inverse), on_weight, None


class _SwiGLU(torch.autograd.Function):
    """silu(gate) * up `[..., F]` that keeps its two inputs only, and makes one tensor where three would be made."""

    @staticmethod
    def forward(ctx: FunctionCtx, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        return F.silu(gate).mul_(up)

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor, Tensor]:
        gate, up = ctx.saved_tensors  # type: ignore[attr-defined]
        on_up = F.silu(gate).mul_(gradient)
        return torch.ops.aten.silu_backward(gradient * up, gate), on_up


def trunk_and_head(decoder: PreTrainedModel) -> tuple[nn.Module, Tensor]:
    """The decoder without its output layer, and that layer's weight `[V, D]`."""
    head = decoder.get_output_embeddings()
    if type(head) is not nn.Linear or head.bias is not None:
        raise ValueError(
            f"the output layer must be a Linear without bias, log-probs are formed from its weight; got {head}; "
            "leave lm_head out of the LoRA targets"
        )
    return decoder.get_decoder(), head.weight


def dropouts(decoder: PreTrainedModel) -> dict[str, float]:
    """The dropout of a decoder that is above 0: name of the module (or config key) -> probability."""
    chances = {name: float(m.p) for name, m in decoder.named_modules() if isinstance(m, nn.Dropout) and m.p}
    config = decoder.config.get_text_config(decoder=True)
    if chance := getattr(config, "attention_dropout", 0.0):
        chances["attention_dropout"] = float(chance)
    return chances


def positions(mask: Tensor) -> Tensor:
    """Position ids `[B, P]` that count real tokens from 0, wherever the padding is."""
    return (mask.long().cumsum(1) - 1).clamp(min=0)


def last_position(mask: Tensor) -> Tensor:
    """Index `[B]` of the last real position of each row of `mask` `[B, P]`."""
    return mask.shape[1] - 1 - mask.flip(1).long().argmax(1)


def left_padded(embeds: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """The prompts `[B, P, D]` and their mask `[B, P]` with all padding on the left, so that what follows adjoins them."""
    order = mask.long().argsort(dim=1, stable=True)
    return embeds.gather(1, order[..., None].expand_as(embeds)), mask.gather(1, order)


def padding_bias(mask: Tensor, dtype: torch.dtype) -> Tensor | None:
    """0 where `mask` `[B, P]` is set and -inf elsewhere, `[B, 1, 1, P]`; None where it is set everywhere."""
    if bool(mask.all()):
        return None
    bias = torch.zeros(mask.shape, dtype=dtype, device=mask.device)
    return bias.masked_fill_(~mask.bool(), -torch.inf)[:, None, None, :]
