"""Check on a few tokens of the first step that the shared-prefix computation has the gradients of the plain one."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from erv.engine.layers import pad_left
from erv.engine.logprobs import completion_logps, completion_logps_plain

_log = logging.getLogger(__name__)
# The two computations differ by rounding alone, in another order than the simulated rounding. Measured ratios of their
# difference to the simulated rounding: 0.4 to 1.2, for real weights too; 100 and more for a layer that is 2 % off.
ROUNDING_MARGIN = 10.0
SMALLEST_TOLERANCE = 1e-5  # relative; where rounding is tiny, its estimate may be too small
LARGEST_ROUNDING = 0.02  # relative; beyond it, rounding hides what a wrong layer would do


def verify_shared_prefix(
    decoder: PreTrainedModel,
    prompt_embeds: Tensor,
    prompt_mask: Tensor,
    tokens: Tensor,
    mask: Tensor,
    group_size: int,
    tolerance: float | None = None,
) -> float:
    """Compare the gradients of `completion_logps` and `completion_logps_plain`; raise ValueError where they differ.

    The gradients are those of a random linear function of the log-probs, over the prompt embeddings and the trained weights
    of the first, the middle and the last layer. Both computations run without dropout, and without autocast where all
    weights are fp32.

    A fixed tolerance would not do: Qwen2's key biases of 100 and more make attention scores whose rounding errors alone
    change gradients by 1e-3 in fp32. With `tolerance` None the allowed difference is `ROUNDING_MARGIN` times what rounding
    does to the plain gradients, measured by repeating the plain computation with the inputs and outputs of every module
    perturbed by their unit roundoff (Monte Carlo arithmetic, Parker 1997). Where rounding would hide a wrong layer, a
    warning says that nothing was checked.

    Args: as `completion_logps`.

    Returns:
        The relative difference of the gradients (Frobenius norm); NaN where the plain gradients are zero or not finite, so
        that nothing could be compared.
    """
    batch = (prompt_mask, tokens, mask, group_size)
    weights = _probed_weights(decoder)
    all_fp32 = all(p.dtype == torch.float32 for p in decoder.parameters())
    prompt = (prompt_embeds.detach().float() if all_fp32 else prompt_embeds.detach()).requires_grad_()
    # random, so that no error cancels in the sum; of a generator of its own, so that the step's random numbers stay the same
    coefficients = torch.rand(tokens.shape, generator=torch.Generator().manual_seed(0)).to(tokens.device)

    def gradients(logps: Callable[[], Tensor]) -> list[Tensor]:
        grads = torch.autograd.grad((logps() * mask * coefficients).sum(), [prompt, *weights], materialize_grads=True)
        return [g.float() for g in grads]

    def plain_logps() -> Tensor:
        return completion_logps_plain(decoder, prompt, *batch)

    training = decoder.training
    decoder.eval()  # dropout would differ between the passes
    try:
        with torch.autocast(prompt.device.type, enabled=torch.is_autocast_enabled(prompt.device.type) and not all_fp32):
            plain = gradients(plain_logps)
            plain_norm = _norm(plain)
            if plain_norm == 0 or not math.isfinite(plain_norm):
                return math.nan
            shared = gradients(lambda: completion_logps(decoder, prompt, *batch).logps)
            difference = _norm([a - b for a, b in zip(shared, plain, strict=True)]) / plain_norm
            if tolerance is None:
                del shared  # as large as the probed weights
                with _simulated_rounding(decoder):
                    perturbed = gradients(plain_logps)
                rounding = _norm([a - b for a, b in zip(perturbed, plain, strict=True)]) / plain_norm
                if not rounding <= LARGEST_ROUNDING:
                    _log.warning(
                        "the shared prefix is not checked: rounding alone changes these gradients by %.1e (relative), as much "
                        "as a wrong layer would",
                        rounding,
                    )
                    return difference
                tolerance = max(SMALLEST_TOLERANCE, ROUNDING_MARGIN * rounding)
    finally:
        decoder.train(training)
    if not difference <= tolerance:
        raise ValueError(
            f"this decoder's layers ({type(decoder).__name__}) do not compute what erv/engine/layers.py makes of them: gradients "
            f"through the shared prefix differ from the plain ones by {difference:.1e} (relative), and rounding explains "
            f"at most {tolerance:.1e}. Take the layers' class out of SUPPORTED_LAYERS in erv/engine/layers.py, and every "
            "completion runs its prompt anew; algo.verify_shared_prefix=false skips this check and trains with these gradients"
        )
    return difference


def self_check_sample(
    prompt_embeds: Tensor,
    prompt_mask: Tensor,
    tokens: Tensor,
    mask: Tensor,
    group_size: int,
    at_most: int = 2,
    prompt_tokens: int = 64,
    completion_tokens: int = 16,
) -> tuple[Tensor, Tensor, Tensor, Tensor, int]:
    """Cut a batch down to what `verify_shared_prefix` needs: enough to compare layers, and cheap beside a step.

    The first `at_most` prompts with their first `at_most` completions each; of a prompt the last `prompt_tokens` positions,
    of a completion the first `completion_tokens`. Arguments and result are in the order of `completion_logps`.
    """
    prompts, group = min(at_most, len(prompt_embeds)), min(at_most, group_size)
    rows = [b * group_size + g for b in range(prompts) for g in range(group)]
    embeds, prompt_mask = prompt_embeds[:prompts], prompt_mask[:prompts]
    if embeds.shape[1] > prompt_tokens:
        embeds, prompt_mask = (t[:, -prompt_tokens:] for t in pad_left(embeds, prompt_mask))
    return embeds, prompt_mask, tokens[rows, :completion_tokens], mask[rows, :completion_tokens], group


def _probed_weights(decoder: PreTrainedModel) -> list[nn.Parameter]:
    """Trained weights of the first, the middle and the last layer.

    The gradient of the prompt passes through all layers, so it shows a wrong one anywhere; three layers show whether
    gradients of weights are right, at a fraction of the memory that all of them take.
    """
    layers = list(getattr(decoder.get_decoder(), "layers", ())) or [decoder]
    chosen = dict.fromkeys((0, len(layers) // 2, len(layers) - 1))
    return [p for index in chosen for p in layers[index].parameters() if p.requires_grad]


def _norm(tensors: list[Tensor]) -> float:
    """The Frobenius norm over all entries of all `tensors`."""
    return float(torch.stack([t.norm() for t in tensors]).norm())


@contextmanager
def _simulated_rounding(decoder: PreTrainedModel) -> Iterator[None]:
    """Perturb the inputs and outputs of every leaf module, and the residual stream between layers, by a unit roundoff.

    A value becomes value * (1 + eps u), u uniform in [-1, 1], rounded. Inputs are perturbed as well as outputs, because a sum
    that cancels loses more than the last digit of its result.
    """
    device = next(decoder.parameters()).device
    generator = torch.Generator(device).manual_seed(0)  # its own: the step's random numbers stay the same

    def perturb(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(perturb(item) for item in value)
        if not torch.is_tensor(value) or not value.is_floating_point():
            return value
        # in fp64: 1 + eps u would be rounded to 1 or 1 + eps in the value's own type
        noise = torch.rand(value.shape, generator=generator, device=value.device, dtype=torch.float64)
        return (value * (1 + torch.finfo(value.dtype).eps * (2 * noise - 1))).to(value.dtype)

    handles = []
    for module in decoder.modules():
        if not any(True for _ in module.children()):
            handles.append(module.register_forward_pre_hook(lambda _module, inputs: perturb(inputs)))
            handles.append(module.register_forward_hook(lambda _module, _inputs, output: perturb(output)))
    for layer in getattr(decoder.get_decoder(), "layers", ()):
        handles.append(layer.register_forward_hook(lambda _module, _inputs, output: perturb(output)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
