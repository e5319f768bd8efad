"""Does a training step fit the memory of the cards here? Worked out before anything is made, with nothing allocated."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from erv import config
from erv.distributed import strategies
from erv.errors import ConfigError
from erv.runs.resolve import find_model

if TYPE_CHECKING:
    from erv.policy.humanomni.config import HumanOmniConfig
    from erv.training.memory import Setup

_log = logging.getLogger(__name__)
RESERVED = 1.5e9  # context, libraries' workspaces and fragmentation, which no estimate sees
LESS = "policy.gradient_checkpointing=true, policy.lora={r: 16}, a smaller algo.token_budget, trainer=fsdp2 on more devices"
_STAYS = ("weights", "reference", "gradients", "optimiser")


def sizes_of(policy: Mapping[str, Any], seed: int) -> tuple[HumanOmniConfig, str]:
    """The policy's sizes and where they were read: its checkpoint if it has one, else policy.config.

    ConfigError when the checkpoint is not on this machine.
    """
    from erv.policy.humanomni.config import HumanOmniConfig
    from erv.policy.humanomni.convert import read_config

    if policy.get("checkpoint") is None:
        return HumanOmniConfig(**policy["config"]), "policy.config"
    folder, _ = find_model(policy["checkpoint"], seed)
    return read_config(Path(folder), dict(policy.get("upstream") or {})), folder


def setup_of(tree: Mapping[str, Any], processes: int) -> Setup:
    """The step that `algo`, `policy` and `trainer` of a config describe, in `processes` processes."""
    from erv.training.memory import Setup

    algo, policy, trainer = tree["algo"], tree["policy"], tree["trainer"]
    sampled = "group_size" in algo
    return Setup(
        train=policy["train"],
        prompts=max(algo["batch_size"] // processes, 1),
        group_size=algo.get("group_size", 1),
        new_tokens=algo.get("max_new_tokens", 256),
        token_budget=algo.get("token_budget"),
        sampled=sampled,
        reference=sampled and algo["objective"]["beta"] > 0,
        lora=policy["lora"],
        gradient_checkpointing=policy["gradient_checkpointing"],
        dtype=policy["dtype"],
        precision=str(trainer["precision"]),
        strategy=strategies.strategy(trainer),
        devices=processes,
        gpu=trainer["accelerator"] != "cpu",
    )


def smallest_here() -> float | None:
    """Bytes of the smallest GPU of this machine; None without one."""
    import torch

    count = torch.cuda.device_count()
    return min((torch.cuda.get_device_properties(i).total_memory for i in range(count)), default=None)


def require(tree: Mapping[str, Any], processes: int) -> None:
    """Refuse training on GPUs that cannot hold it; before the policy is made, in each process. See `judge`."""
    on_gpu = tree["trainer"]["accelerator"] != "cpu"
    # of the stages, those that take a policy's modalities train its decoder; the estimate is of that
    if not on_gpu or not config.parameters_among(tree["algo"], ["modalities"]) or (card := smallest_here()) is None:
        return
    from erv.training.memory import estimate

    sizes, _ = sizes_of(tree["policy"], tree["seed"])
    judge(estimate(sizes, setup_of(tree, processes)), card)


def judge(bytes_of: Mapping[str, int], card: float) -> None:
    """ConfigError when what stays on a device is more than the `card`'s bytes; a warning when the estimated peak is."""
    stays = {name: bytes_of[name] for name in _STAYS if bytes_of[name]}
    parts = ", ".join(f"{name} {spoken_size(size)}" for name, size in stays.items())
    if sum(stays.values()) > card:
        raise ConfigError(
            f"training does not fit: a device has to hold {spoken_size(sum(stays.values()))} at all times ({parts}), and the "
            f"smallest GPU here has {spoken_size(card)}; to need less: {LESS}; look with: python -m erv.doctor policy=NAME"
        )
    if bytes_of["peak"] + RESERVED > card:
        _log.warning(
            "training may run out of memory: a step needs about %s at its peak (%s at all times), and the smallest GPU here "
            "has %s; to need less: %s", spoken_size(bytes_of["peak"]), spoken_size(sum(stays.values())), spoken_size(card), LESS,
        )  # fmt: skip


def spoken_size(count: float) -> str:
    """Bytes in the unit that fits."""
    for unit, size in (("GB", 1e9), ("MB", 1e6)):
        if count >= size:
            return f"{count / size:,.2f} {unit}"
    return f"{count / 1e3:,.1f} kB"
