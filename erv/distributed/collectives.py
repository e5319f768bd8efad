"""Collective operations of the processes of a training run: all of them call each function, equally often.

In a run of one process they return what they got, to the last bit.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

T = TypeVar("T")
_BUCKET_BYTES = 2**25  # gradients of so many bytes are reduced in one call


def world_size() -> int:
    """How many processes there are."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """The number of this process."""
    return dist.get_rank() if world_size() > 1 else 0


def all_reduce_sum(tensor: Tensor) -> Tensor:
    """The sum over the processes of a tensor with the same shape in each."""
    if world_size() == 1:
        return tensor
    tensor = tensor.clone()
    dist.all_reduce(tensor)
    return tensor


def all_reduce_numbers(numbers: Sequence[float], device: torch.device) -> list[float]:
    """The sum of each number over the processes; `device` is one that the backend can send from."""
    # in fp64, which counts tokens exactly
    sums: list[float] = all_reduce_sum(torch.tensor(numbers, dtype=torch.float64, device=device)).tolist()
    return sums


def all_reduce_mean(tensor: Tensor) -> Tensor:
    """The mean over the processes."""
    return all_reduce_sum(tensor) / world_size()


def all_gather_object(value: T) -> list[T]:
    """The values of all processes in the order of their ranks; anything that can be pickled, on the CPU."""
    if world_size() == 1:
        return [value]
    values: list[T | None] = [None] * world_size()
    dist.all_gather_object(values, value)
    return values  # type: ignore[return-value]


def broadcast(tensors: Iterable[Tensor], device: torch.device) -> None:
    """Copy rank 0's tensors to all processes, in place; `device` is one that the backend can send from."""
    for tensor in tensors if world_size() > 1 else ():
        sent = tensor.data.to(device)
        dist.broadcast(sent, src=0)
        if sent.device != tensor.device:
            tensor.data.copy_(sent)


def full_tensor(tensor: Tensor) -> Tensor:
    """The whole of a tensor that may be sharded (DTensor)."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def all_gather_rows(tensor: Tensor) -> Tensor:
    """Concatenate the rows `[n, ...]` of all processes; n may differ.

    The gradient reaches this process' rows only, multiplied by the number of processes: when gradients are averaged
    afterwards, they are those of a loss that every process computes from all rows.
    """
    if world_size() == 1:
        return tensor
    counts = all_gather_object(len(tensor))
    padded = tensor.new_zeros(max(counts), *tensor.shape[1:])  # all_gather takes equal shapes only
    padded[: len(tensor)] = tensor.detach()
    parts = [torch.empty_like(padded) for _ in counts]
    dist.all_gather(parts, padded)
    rows = [part[:count] for part, count in zip(parts, counts, strict=True)]
    if tensor.requires_grad:
        # the value of `tensor` to the last bit, and world_size times its gradient
        rows[rank()] = tensor.detach() + world_size() * (tensor - tensor.detach())
    return torch.cat(rows)


def all_reduce_gradients(parameters: Iterable[nn.Parameter], mean: bool = False) -> None:
    """Replace gradients by their sums, or means, over the processes; a parameter that no process has used keeps none.

    The gradients of sharded weights (DTensor, trainer=fsdp2) have been reduced by then and are left as they are. Processes
    may have run different numbers of backward passes, also none.
    """
    trained = [p for p in parameters if p.requires_grad and not isinstance(p, DTensor)]
    if world_size() == 1 or not trained:
        return
    used = torch.tensor([p.grad is not None for p in trained], dtype=torch.int32, device=trained[0].device)
    buckets: list[list[Tensor]] = []
    for parameter, count in zip(trained, all_reduce_sum(used).tolist(), strict=True):
        if count == 0:
            continue
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        if not buckets or buckets[-1][0].dtype != parameter.grad.dtype or _bytes(buckets[-1]) >= _BUCKET_BYTES:
            buckets.append([])
        buckets[-1].append(parameter.grad)
    for bucket in buckets:
        _all_reduce_in_place(bucket, mean)


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)


def _all_reduce_in_place(tensors: list[Tensor], mean: bool) -> None:
    """Reduce several tensors in one call: as one flat copy, unless there is one tensor that needs no copy."""
    in_place = len(tensors) == 1 and tensors[0].is_contiguous()
    flat = tensors[0] if in_place else torch.cat([t.flatten() for t in tensors])
    dist.all_reduce(flat)
    if mean:
        flat /= world_size()
    if not in_place:
        for tensor, part in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
            tensor.copy_(part.view_as(tensor))
