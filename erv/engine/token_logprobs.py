"""Log-probs of given tokens from hidden states, without ever holding all logits of a large vocabulary."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

TILE = 2**20  # logits of a tile, 4 MiB in fp32: it stays in the cache from the projection to the last sum
ROWS = 256  # but never fewer rows than keep a matrix product busy
KEPT = 2**25  # probabilities kept for the backward pass, 128 MiB; more than that are computed again


def token_logps(
    hidden: Tensor, head: Tensor, targets: Tensor, temperature: float = 1.0, with_entropy: bool = False
) -> tuple[Tensor, Tensor | None]:
    """log softmax(hidden head^T / temperature) at `targets`: hidden `[M, D]`, head `[V, D]`, targets `[M]` -> `[M]` fp32.

    The entropy `[M]` of the distributions carries no gradient.
    """
    logps, entropy = _TokenLogps.apply(hidden, head, targets, temperature, with_entropy, torch.is_grad_enabled())
    return logps, entropy if with_entropy else None


class _TokenLogps(torch.autograd.Function):
    """With p = exp(z - peak) / s and logits z: log p_t = z_t - peak - log s, entropy = log s - sum p (z - peak)."""

    @staticmethod
    def forward(
        ctx: FunctionCtx, hidden: Tensor, head: Tensor, targets: Tensor, temperature: float, with_entropy: bool,
        training: bool,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        logps = hidden.new_empty(len(hidden), dtype=torch.float32)
        entropy = torch.zeros_like(logps)
        kept = None
        if training and len(hidden) * len(head) <= KEPT:
            kept = hidden.new_empty(len(hidden), len(head), dtype=torch.float32)
        for rows in _tiles(hidden, head):
            z = _logits(hidden[rows], head, temperature)
            z -= z.amax(1, keepdim=True)
            chosen = z.gather(1, targets[rows, None]).squeeze(1)
            p = torch.exp(z, out=kept[rows] if kept is not None else None)
            s = p.sum(1)
            logps[rows] = chosen - s.log()
            if kept is not None:
                p /= s[:, None]
            if with_entropy:
                mean = z.mul_(p).sum(1)
                entropy[rows] = s.log() - (mean if kept is not None else mean / s)
        ctx.save_for_backward(hidden, head, targets, kept)  # type: ignore[arg-type]
        ctx.temperature = temperature  # type: ignore[attr-defined]
        ctx.mark_non_differentiable(entropy)
        return logps, entropy

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        """d log p_t / d z = (onehot_t - p) / temperature."""
        hidden, head, targets, kept = ctx.saved_tensors  # type: ignore[attr-defined]
        grad_hidden = torch.empty_like(hidden)
        grad_head = torch.zeros_like(head, dtype=torch.float32) if ctx.needs_input_grad[1] else None  # type: ignore[attr-defined]
        scale = gradient / ctx.temperature  # type: ignore[attr-defined]
        for rows in _tiles(hidden, head):
            p = _logits(hidden[rows], head, ctx.temperature).softmax(1) if kept is None else kept[rows]  # type: ignore[attr-defined]
            on_logits = p * -scale[rows, None]
            on_logits.scatter_add_(1, targets[rows, None], scale[rows, None])
            on_logits = on_logits.to(hidden.dtype)
            grad_hidden[rows] = on_logits @ head.to(hidden.dtype)
            if grad_head is not None:
                if hidden.dtype == torch.float32:
                    grad_head.addmm_(on_logits.t(), hidden[rows])
                else:
                    grad_head += on_logits.t() @ hidden[rows]
        return grad_hidden, None if grad_head is None else grad_head.to(head.dtype), None, None, None, None


def _logits(hidden: Tensor, head: Tensor, temperature: float) -> Tensor:
    logits = (hidden @ head.to(hidden.dtype).t()).float()
    return logits if temperature == 1 else logits.div_(temperature)


def _tiles(hidden: Tensor, head: Tensor) -> list[slice]:
    rows = max(TILE // head.shape[0], ROWS)
    return [slice(start, start + rows) for start in range(0, len(hidden), rows)]
