"""Log-probs of given tokens from hidden states, in tiles: the logits of a large vocabulary are never all in memory.

128 completions of 200 tokens over 152k logits would be 15.6 GB in fp32, and as much again for their gradient. The tiles
follow the idea of fused linear cross-entropy (Liger kernel, cut cross-entropy), for log-probs instead of a loss.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

TILE = 2**20  # logits of a tile, 4 MiB in fp32: stays in the CPU's cache from the projection to the last sum
ROWS = 256  # at least this many rows a tile: fewer would not keep a matrix product busy
MAX_SAVED = (
    2**25
)  # up to this many probabilities (128 MiB) are saved for the backward pass; beyond it they are recomputed


def token_logps(
    hidden: Tensor,
    head: Tensor,
    targets: Tensor,
    temperature: float = 1.0,
    with_entropy: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Compute log softmax(hidden head^T / temperature) at the target tokens.

    Args:
        hidden: final hidden states `[M, D]` that predict the targets.
        head: weight of the output layer `[V, D]`, without bias.
        targets: token ids `[M]`.
        temperature: divides the logits.
        with_entropy: compute the entropies as well.

    Returns:
        The log-probs `[M]` in fp32, differentiable in `hidden` and `head`, and the entropies `[M]` of the distributions,
        without gradient, or None.
    """
    logps, entropy = _TokenLogps.apply(hidden, head, targets, temperature, with_entropy, torch.is_grad_enabled())
    return logps, entropy if with_entropy else None


class _TokenLogps(torch.autograd.Function):
    """Log-probs and entropies, a tile of rows at a time.

    With logits z, peak = max z, s = sum exp(z - peak) and p = exp(z - peak) / s:
    log p_t = z_t - peak - log s, entropy = log s - sum p (z - peak), d log p_t / d z = (onehot_t - p) / temperature.
    """

    @staticmethod
    def forward(
        ctx: FunctionCtx,
        hidden: Tensor,
        head: Tensor,
        targets: Tensor,
        temperature: float,
        with_entropy: bool,
        training: bool,
    ) -> tuple[Tensor, Tensor]:
        logps = hidden.new_empty(len(hidden), dtype=torch.float32)
        entropy = torch.zeros_like(logps)
        saved = None
        if training and len(hidden) * len(head) <= MAX_SAVED:
            saved = hidden.new_empty(len(hidden), len(head), dtype=torch.float32)
        for rows in _tiles(hidden, head):
            z = _logits(hidden[rows], head, temperature)
            z -= z.amax(1, keepdim=True)
            target_z = z.gather(1, targets[rows, None]).squeeze(1)
            p = torch.exp(z, out=saved[rows] if saved is not None else None)  # not yet divided by s
            s = p.sum(1)
            logps[rows] = target_z - s.log()
            if saved is not None:
                p /= s[:, None]
            if with_entropy:
                mean = z.mul_(p).sum(1)
                entropy[rows] = s.log() - (mean if saved is not None else mean / s)
        ctx.save_for_backward(hidden, head, targets, saved)  # type: ignore[arg-type]
        ctx.temperature = temperature  # type: ignore[attr-defined]
        ctx.mark_non_differentiable(entropy)
        return logps, entropy

    @staticmethod
    def backward(ctx: FunctionCtx, grad_logps: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        hidden, head, targets, saved = ctx.saved_tensors  # type: ignore[attr-defined]
        grad_hidden = torch.empty_like(hidden)
        # summed over all tiles, so in fp32 whatever the weight's type
        grad_head = torch.zeros_like(head, dtype=torch.float32) if ctx.needs_input_grad[1] else None  # type: ignore[attr-defined]
        scale = grad_logps / ctx.temperature  # type: ignore[attr-defined]
        for rows in _tiles(hidden, head):
            p = _logits(hidden[rows], head, ctx.temperature).softmax(1) if saved is None else saved[rows]  # type: ignore[attr-defined]
            grad_logits = p * -scale[rows, None]
            grad_logits.scatter_add_(1, targets[rows, None], scale[rows, None])
            grad_logits = grad_logits.to(hidden.dtype)
            grad_hidden[rows] = grad_logits @ head.to(hidden.dtype)
            if grad_head is not None:
                if hidden.dtype == torch.float32:
                    grad_head.addmm_(grad_logits.t(), hidden[rows])  # without a temporary of the head's size
                else:
                    grad_head += grad_logits.t() @ hidden[rows]
        return grad_hidden, None if grad_head is None else grad_head.to(head.dtype), None, None, None, None


def _logits(hidden: Tensor, head: Tensor, temperature: float) -> Tensor:
    """Logits `[rows, V]` of a tile, in fp32: log-probs are differences of large numbers."""
    logits = (hidden @ head.to(hidden.dtype).t()).float()
    return logits if temperature == 1 else logits.div_(temperature)


def _tiles(hidden: Tensor, head: Tensor) -> list[slice]:
    """Slices of the rows of `hidden`, TILE logits each, but at least ROWS rows."""
    rows = max(TILE // head.shape[0], ROWS)
    return [slice(start, start + rows) for start in range(0, len(hidden), rows)]
