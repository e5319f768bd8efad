"""Hashing of model weights."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor


def tensors_sha256(tensors: dict[str, Tensor]) -> str:
    """SHA-256 over the names, shapes, dtypes and bytes of `tensors`, in hex; independent of their order and device."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name}{tuple(value.shape)}{value.dtype}".encode())
        digest.update(value.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
