"""What the processes of a training run tell each other. Every function is a collective: all of them call it, equally often.

In a run of one process they give back what they got, to the last bit.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

T = TypeVar("T")
_BUCKET = 2**25  # bytes of gradients that travel together


def size() -> int:
    """How many processes there are."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Which of them this is."""
    return dist.get_rank() if size() > 1 else 0


def total(tensor: Tensor) -> Tensor:
    """The sum over the processes; of any shape, the same everywhere."""
    if size() == 1:
        return tensor
    tensor = tensor.clone()
    dist.all_reduce(tensor)
    return tensor


def totals(numbers: Sequence[float], device: torch.device) -> list[float]:
    """The sum of each number over the processes; `device` is one that tensors may travel from."""
    found: list[float] = total(torch.tensor(numbers, dtype=torch.float64, device=device)).tolist()
    return found


def average(tensor: Tensor) -> Tensor:
    """The mean over the processes."""
    return total(tensor) / size()


def gathered(value: T) -> list[T]:
    """The values of all processes in the order of their ranks; anything that can be pickled, on the CPU."""
    if size() == 1:
        return [value]
    found: list[T | None] = [None] * size()
    dist.all_gather_object(found, value)
    return found  # type: ignore[return-value]


def broadcast(tensors: Iterable[Tensor], device: torch.device) -> None:
    """Give all processes what rank 0 has, in place; `device` is one that tensors may travel from."""
    for tensor in tensors if size() > 1 else ():
        travelling = tensor.data.to(device)
        dist.broadcast(travelling, src=0)
        if travelling.device != tensor.device:
            tensor.data.copy_(travelling)


def full(tensor: Tensor) -> Tensor:
    """The tensor as one process would have it, where the processes share it out."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def joined(tensor: Tensor) -> Tensor:
    """The rows of all processes, `[n, ...]` each, one after the other; n may differ.

    The gradient reaches a process' own rows, and is multiplied by the number of processes: those who average gradients then
    get that of a loss that every process computes from all rows.
    """
    if size() == 1:
        return tensor
    counts = gathered(len(tensor))
    padded = tensor.new_zeros(max(counts), *tensor.shape[1:])
    padded[: len(tensor)] = tensor.detach()
    found = [torch.empty_like(padded) for _ in counts]
    dist.all_gather(found, padded)
    rows = [part[:count] for part, count in zip(found, counts, strict=True)]
    if tensor.requires_grad:
        rows[rank()] = tensor.detach() + size() * (tensor - tensor.detach())
    return torch.cat(rows)


def reduce_gradients(parameters: Iterable[nn.Parameter], mean: bool = False) -> None:
    """Replace gradients by their sums, or means, over the processes; a parameter that no process has used keeps none.

    Those of weights that are shared out (trainer=fsdp2) have been reduced already. The processes may have run any number of
    backward passes, and none at all.
    """
    trained = [p for p in parameters if p.requires_grad and not isinstance(p, DTensor)]
    if size() == 1 or not trained:
        return
    used = torch.tensor([p.grad is not None for p in trained], dtype=torch.int32, device=trained[0].device)
    buckets: list[list[Tensor]] = []
    for parameter, count in zip(trained, total(used).tolist(), strict=True):
        if count == 0:
            continue
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        if not buckets or buckets[-1][0].dtype != parameter.grad.dtype or _bytes(buckets[-1]) >= _BUCKET:
            buckets.append([])
        buckets[-1].append(parameter.grad)
    for bucket in buckets:
        _reduce_in_place(bucket, mean)


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)


def _reduce_in_place(tensors: list[Tensor], mean: bool) -> None:
    alone = len(tensors) == 1 and tensors[0].is_contiguous()
    flat = tensors[0] if alone else torch.cat([t.flatten() for t in tensors])
    dist.all_reduce(flat)
    if mean:
        flat /= size()
    if not alone:
        for tensor, part in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
            tensor.copy_(part.view_as(tensor))
