"""The devices, processes and strategy that a `trainer` config stands for. Imports torch only to count GPUs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

SHARING = ("fsdp2", "deepspeed_z2", "deepspeed_z3")
"""Strategies that shard weights, or gradients and optimizer states, among the processes."""

_NAMES = {"erv.distributed.DDP": "ddp", "erv.distributed.FSDP": "fsdp2"}


def devices(trainer: Mapping[str, Any]) -> list[int]:
    """The devices of one machine in `trainer.devices`: a number, a list, a text of either, -1 or "auto"."""
    value = trainer.get("devices", 1)
    if isinstance(value, list | tuple):
        return [int(device) for device in value]
    if isinstance(value, str) and "," in value:
        return [int(device) for device in value.split(",") if device.strip()]
    if str(value) in ("-1", "auto"):
        if trainer.get("accelerator") == "cpu":
            return [0]
        from torch import cuda

        return list(range(max(cuda.device_count(), 1)))
    return list(range(int(value)))


def processes(trainer: Mapping[str, Any]) -> int:
    """How many processes train together."""
    return len(devices(trainer)) * int(trainer.get("num_nodes") or 1)


def strategy(trainer: Mapping[str, Any] | None) -> str:
    """The strategy by the name of its config file ("ddp", "fsdp2", "deepspeed_z3", …), or "auto"."""
    value = (trainer or {}).get("strategy", "auto")
    target = str(value.get("_target_", "")) if isinstance(value, Mapping) else str(value)
    if target == "erv.distributed.DeepSpeed" and isinstance(value, Mapping):
        return f"deepspeed_z{value.get('stage')}"
    return _NAMES.get(target, target)
