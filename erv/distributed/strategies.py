"""How the processes of a run work together, as trainer.devices and trainer.strategy say. Imports torch only to count GPUs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_STRATEGIES = {"erv.distributed.DDP": "ddp", "erv.distributed.FSDP": "fsdp2"}


SHARING = ("fsdp2", "deepspeed_z2", "deepspeed_z3")  # of weights or of what belongs to them


def devices(trainer: Mapping[str, Any]) -> list[int]:
    """The devices of one machine that `trainer.devices` names: a number, a list, a text of either, -1 or "auto"."""
    given = trainer.get("devices", 1)
    if isinstance(given, list | tuple):
        return [int(device) for device in given]
    if isinstance(given, str) and "," in given:
        return [int(device) for device in given.split(",") if device.strip()]
    if str(given) in ("-1", "auto"):
        if trainer.get("accelerator") == "cpu":
            return [0]
        from torch import cuda

        return list(range(max(cuda.device_count(), 1)))
    return list(range(int(given)))


def processes(trainer: Mapping[str, Any]) -> int:
    """How many processes train together."""
    return len(devices(trainer)) * int(trainer.get("num_nodes") or 1)


def strategy(trainer: Mapping[str, Any] | None) -> str:
    """How the processes of `trainer` work together, by the name of the config that says so: "ddp", "fsdp2", …; or "auto"."""
    given = (trainer or {}).get("strategy", "auto")
    target = str(given.get("_target_", "")) if isinstance(given, Mapping) else str(given)
    if target == "erv.distributed.DeepSpeed" and isinstance(given, Mapping):
        return f"deepspeed_z{given.get('stage')}"
    return _STRATEGIES.get(target, target)
