"""Log-probs of given tokens from hidden states, without ever holding all logits of a large vocabulary."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

TILE = 2**25  # logits held at once; 128 MiB in fp32


def token_logps(
    hidden: Tensor, head: Tensor, targets: Tensor, temperature: float = 1.0, with_entropy: bool = False
) -> tuple[Tensor, Tensor | None]:
    """log softmax(hidden head^T / temperature) at `targets`: hidden `[M, D]`, head `[V, D]`, targets `[M]` -> `[M]` fp32.

    The entropy `[M]` of the distributions carries no gradient.
    """
    logps, entropy = _TokenLogps.apply(hidden, head, targets, temperature, with_entropy)
    return logps, entropy if with_entropy else None


class _TokenLogps(torch.autograd.Function):
    """Logits are made tile by tile; the backward pass makes them again unless all of them fit into one tile."""

    @staticmethod
    def forward(
        ctx: FunctionCtx, hidden: Tensor, head: Tensor, targets: Tensor, temperature: float, with_entropy: bool
    ) -> tuple[Tensor, Tensor]:
        logps = hidden.new_empty(len(hidden), dtype=torch.float32)
        entropy = torch.zeros_like(logps)
        normaliser = torch.empty_like(logps)
        probabilities = None
        for rows in _tiles(hidden, head):
            logits = _logits(hidden[rows], head, temperature)
            normaliser[rows] = logits.logsumexp(1)
            logps[rows] = logits.gather(1, targets[rows, None]).squeeze(1) - normaliser[rows]
            probabilities = logits.sub(normaliser[rows, None]).exp_()
            if with_entropy:
                entropy[rows] = normaliser[rows] - (probabilities * logits).sum(1)
        kept = probabilities if len(_tiles(hidden, head)) == 1 else None
        ctx.save_for_backward(hidden, head, targets, normaliser, kept)  # type: ignore[arg-type]
        ctx.temperature = temperature  # type: ignore[attr-defined]
        ctx.mark_non_differentiable(entropy)
        return logps, entropy

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        """d logp / d logits = (onehot - p) / temperature."""
        hidden, head, targets, normaliser, kept = ctx.saved_tensors  # type: ignore[attr-defined]
        grad_hidden = torch.empty_like(hidden)
        grad_head = torch.zeros_like(head, dtype=torch.float32) if ctx.needs_input_grad[1] else None  # type: ignore[attr-defined]
        scale = gradient / ctx.temperature  # type: ignore[attr-defined]
        for rows in _tiles(hidden, head):
            if kept is None:
                p = _logits(hidden[rows], head, ctx.temperature).sub_(normaliser[rows, None]).exp_()  # type: ignore[attr-defined]
            else:
                p = kept
            on_logits = p * -scale[rows, None]
            on_logits.scatter_add_(1, targets[rows, None], scale[rows, None])
            on_logits = on_logits.to(hidden.dtype)
            grad_hidden[rows] = on_logits @ head.to(hidden.dtype)
            if grad_head is not None:
                grad_head += on_logits.t() @ hidden[rows]
        return grad_hidden, None if grad_head is None else grad_head.to(head.dtype), None, None, None


def _logits(hidden: Tensor, head: Tensor, temperature: float) -> Tensor:
    logits = (hidden @ head.to(hidden.dtype).t()).float()
    return logits if temperature == 1 else logits.div_(temperature)


def _tiles(hidden: Tensor, head: Tensor) -> list[slice]:
    rows = max(TILE // head.shape[0], 1)
    return [slice(start, start + rows) for start in range(0, len(hidden), rows)]
