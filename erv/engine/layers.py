"""Run a decoder layer by layer, with an attention of our own in each, and only for the positions that are needed.

The projections, norms and MLPs are the decoder's own modules, so adapters (LoRA), hooks and gradient checkpointing work as
they do in its forward pass. What replaces the library's code is attention with rotary embedding (a prompt's keys are shared
by its completions), and the last layer, which runs for the positions whose hidden states are read.
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

# Layers that compute h = x + attention(norm(x)), then h + down(silu(gate(norm(h))) * up(norm(h))), with rotary embedding by
# halves of a head; Qwen3 also norms queries and keys. `erv.engine.self_check` compares gradients before a layer is trusted.
SUPPORTED_LAYERS = (Qwen2DecoderLayer, Qwen3DecoderLayer, LlamaDecoderLayer, MistralDecoderLayer)

# Name of the method through which `run_layers` runs a layer that has it (see `add_run_method`).
RUN_METHOD = "run_with_attention"

# (layer index, query [..., Q, H, d], key and value [..., T, KV, d], not yet rotated) -> [..., Q, H, d]
Attention = Callable[[int, Tensor, Tensor, Tensor], Tensor]
# Takes the positions to read out of [..., T, D] (or of anything with that layout, as cos and sin).
SelectPositions = Callable[[Tensor], Tensor]


def supports_shared_prefix(decoder: PreTrainedModel) -> bool:
    """Tell whether `run_layers` computes what this decoder does: supported layers, full attention, SiLU.

    Other decoders run through their own forward pass, every completion with a prompt of its own.
    """
    layers = getattr(decoder.get_decoder(), "layers", ())
    return len(layers) > 0 and all(
        # the method, not the class: subclasses that add hooks only (FSDP, DeepSpeed) compute the same
        any(type(layer).forward is supported.forward for supported in SUPPORTED_LAYERS)
        and getattr(layer.self_attn, "sliding_window", None) is None
        and isinstance(layer.mlp.act_fn, nn.SiLU | SiLUActivation)
        for layer in layers
    )


def run_layers(trunk: Any, hidden: Tensor, attention: Attention, select: SelectPositions) -> Tensor:
    """Run all layers and the final norm; return the final hidden states of the selected positions.

    Args:
        trunk: the decoder without its output layer (`layers`, `norm`).
        hidden: input embeddings `[..., T, D]`.
        attention: rotary embedding and attention of a layer, see `Attention`.
        select: takes the positions to read out of `[..., T, D]`. It is applied in the last layer, after the keys and values
            of all positions were made: there the others need no query, no MLP and no norm.
    """
    layers = list(trunk.layers)
    for index, layer in enumerate(layers):
        method = getattr(layer, RUN_METHOD, None) or partial(_run_layer, layer)
        run = partial(method, partial(attention, index), select if index == len(layers) - 1 else None)
        if layer.gradient_checkpointing and layer.training:
            hidden = layer._gradient_checkpointing_func(run, hidden)
        else:
            hidden = run(hidden)
    final: Tensor = trunk.norm(hidden)
    return final


def add_run_method(layer: Any) -> None:
    """Give `layer` the method RUN_METHOD that `run_layers` calls, so that FSDP can gather weights around it.

    FSDP gathers a layer's weights around its `forward`, which `run_layers` does not call; a method of the layer can be
    registered for the same treatment, a function cannot.
    """
    setattr(layer, RUN_METHOD, partial(_run_layer, layer))


def rotate(states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Apply rotary position embedding (RoFormer, by halves of a head) to `[..., T, H, d]`; cos and sin are `[..., T, d]`.

    With -sin it is the inverse rotation, which is also its gradient: rotations are orthogonal. In-place products on one
    copy instead of the library's rotate_half, which makes four tensors of this size.
    """
    half = states.shape[-1] // 2
    cos, sin = cos.unsqueeze(-2), sin.unsqueeze(-2)
    rotated = states * cos
    rotated[..., :half].addcmul_(states[..., half:], sin[..., :half], value=-1)
    rotated[..., half:].addcmul_(states[..., :half], sin[..., half:])
    return rotated


def _run_layer(
    layer: Any,
    attention: Callable[[Tensor, Tensor, Tensor], Tensor],
    select: SelectPositions | None,
    hidden: Tensor,
) -> Tensor:
    """Run one pre-norm decoder layer on `[..., T, D]`; `[..., Q, D]` where `select` (None: all) leaves Q positions."""
    attn, mlp = layer.self_attn, layer.mlp
    normed = _rms_norm(layer.input_layernorm, hidden)
    query_input = normed
    if select is not None:
        hidden, query_input = select(hidden), select(normed)
    query, key, value = (
        project(states).unflatten(-1, (-1, attn.head_dim))
        for project, states in ((attn.q_proj, query_input), (attn.k_proj, normed), (attn.v_proj, normed))
    )
    if hasattr(attn, "q_norm"):
        query, key = attn.q_norm(query), attn.k_norm(key)
    hidden = hidden + attn.o_proj(attention(query, key, value).flatten(-2))
    normed = _rms_norm(layer.post_attention_layernorm, hidden)
    output: Tensor = hidden + mlp.down_proj(_SwiGLU.apply(mlp.gate_proj(normed), mlp.up_proj(normed)))
    return output


def _rms_norm(module: Any, hidden: Tensor) -> Tensor:
    """Apply an RMS norm: by our own kernel in fp32 with gradients, else by the decoder's module.

    In half precision the module's casts to fp32 and back are part of what the model computes, so it stays in charge.
    """
    if hidden.dtype != torch.float32 or not torch.is_grad_enabled():
        normed: Tensor = module(hidden)
        return normed
    return _RMSNorm.apply(hidden, module.weight, module.variance_epsilon)


class _RMSNorm(torch.autograd.Function):
    """x / rms(x) * weight of `[..., D]`, rms(x) = sqrt(mean(x^2) + eps), in a third of the passes over memory.

    The library's version is a chain of elementwise operations, and autograd saves a tensor for each of them.
    """

    @staticmethod
    def forward(ctx: FunctionCtx, hidden: Tensor, weight: Tensor, eps: float) -> Tensor:
        square_sum = torch.linalg.vector_norm(hidden, dim=-1, keepdim=True).square_()
        inverse_rms = square_sum.div_(hidden.shape[-1]).add_(eps).rsqrt_()
        ctx.save_for_backward(hidden, weight, inverse_rms)
        return (hidden * inverse_rms).mul_(weight)

    @staticmethod
    def backward(ctx: FunctionCtx, grad_output: Tensor) -> tuple[Tensor, Tensor | None, None]:
        """With y = x / rms(x) and g the gradient: dx = (g w - y mean(g w y)) / rms(x), dw = sum of g y over positions."""
        hidden, weight, inverse_rms = ctx.saved_tensors  # type: ignore[attr-defined]
        y = hidden * inverse_rms
        grad_times_y = grad_output * y
        grad_weight = grad_times_y.flatten(0, -2).sum(0) if ctx.needs_input_grad[1] else None  # type: ignore[attr-defined]
        mean = (grad_times_y @ weight / hidden.shape[-1]).unsqueeze(-1)
        return (grad_output * weight).sub_(y.mul_(mean)).mul_(inverse_rms), grad_weight, None


class _SwiGLU(torch.autograd.Function):
    """silu(gate) * up of `[..., F]`; saves its two inputs only, and recomputes silu(gate) in the backward pass."""

    @staticmethod
    def forward(ctx: FunctionCtx, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        return F.silu(gate).mul_(up)

    @staticmethod
    def backward(ctx: FunctionCtx, grad_output: Tensor) -> tuple[Tensor, Tensor]:
        gate, up = ctx.saved_tensors  # type: ignore[attr-defined]
        grad_up = F.silu(gate).mul_(grad_output)
        return torch.ops.aten.silu_backward(grad_output * up, gate), grad_up


def trunk_and_head(decoder: PreTrainedModel) -> tuple[nn.Module, Tensor]:
    """Split a decoder into its trunk (layers and final norm) and the weight `[V, D]` of its output layer.

    Log-probs are formed from that weight in tiles, without calling the output layer, so it has to be a plain Linear.
    """
    head = decoder.get_output_embeddings()
    if type(head) is not nn.Linear or head.bias is not None:
        raise ValueError(
            f"the output layer must be a Linear without bias, log-probs are formed from its weight; got {head}; "
            "leave lm_head out of the LoRA targets"
        )
    return decoder.get_decoder(), head.weight


def dropout_probabilities(decoder: PreTrainedModel) -> dict[str, float]:
    """List a decoder's dropout above 0: {name of the module, or "attention_dropout": probability}."""
    probabilities = {name: float(m.p) for name, m in decoder.named_modules() if isinstance(m, nn.Dropout) and m.p}
    config = decoder.config.get_text_config(decoder=True)
    if attention_dropout := getattr(config, "attention_dropout", 0.0):  # a function's argument, not a module
        probabilities["attention_dropout"] = float(attention_dropout)
    return probabilities


def position_ids(mask: Tensor) -> Tensor:
    """Position ids `[B, P]` that count the real tokens of `mask` `[B, P]` from 0, on whichever side the padding is."""
    return (mask.long().cumsum(1) - 1).clamp(min=0)


def last_position(mask: Tensor) -> Tensor:
    """Index `[B]` of the last real position of each row of `mask` `[B, P]`."""
    return mask.shape[1] - 1 - mask.flip(1).long().argmax(1)


def pad_left(embeds: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Move the padding of prompts `[B, P, D]` with `mask` `[B, P]` to the left, so that completions adjoin the prompts."""
    order = mask.long().argsort(dim=1, stable=True)
    return embeds.gather(1, order[..., None].expand_as(embeds)), mask.gather(1, order)


def padding_bias(mask: Tensor, dtype: torch.dtype) -> Tensor | None:
    """Attention bias `[B, 1, 1, P]`: 0 at the real positions of `mask` `[B, P]`, -inf at padding; None without padding."""
    if bool(mask.all()):
        return None
    bias = torch.zeros(mask.shape, dtype=dtype, device=mask.device)
    return bias.masked_fill_(~mask.bool(), -torch.inf)[:, None, None, :]
