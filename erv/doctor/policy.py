"""What a training step would need of a device. Nothing is trained, downloaded or allocated."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from erv import config
from erv.config import ConfigError
from erv.run import find_model

if TYPE_CHECKING:
    from erv.lit.memory import Setup
    from erv.policy.config import HumanOmniConfig

CARDS = (16, 24, 40, 48, 80, 96, 141, 192)  # GB of memory of common accelerators
RESERVED = 1.5e9  # context, libraries' workspaces and fragmentation, which no estimate sees


def describe(cfg: DictConfig) -> dict[str, Any]:
    """Parameters, bytes per device and the smallest card, for the step that `cfg` describes."""
    from erv.lit import memory

    sizes, source = _sizes(cfg)
    setup = _setup(cfg)
    bytes_of = memory.estimate(sizes, setup)
    needed = bytes_of["peak"] + RESERVED
    here = _smallest_gpu()
    return {
        "sizes": source,
        "parts": {name: {"parameters": n, "trained": t} for name, (n, t) in memory.part_sizes(sizes, setup).items()},
        "prompt_tokens": memory.prompt_tokens(sizes),
        "step": {
            "clips": setup.prompts, "answers_per_clip": setup.group_size, "new_tokens": setup.new_tokens,
            "token_budget": setup.token_budget, "precision": setup.precision, "strategy": setup.strategy,
            "devices": setup.devices, "gradient_checkpointing": setup.gradient_checkpointing,
        },
        "bytes_per_device": bytes_of,
        "smallest_card_gb": next((card for card in CARDS if needed <= card * 1e9), None),
        "fits_here": None if here is None else needed <= here,
        "cache_bytes_per_clip": sizes.feature_bytes,
    }  # fmt: skip


def _sizes(cfg: DictConfig) -> tuple[HumanOmniConfig, str]:
    """The policy's sizes, and where they were read: its checkpoint if that is on this machine, else policy.config."""
    from erv.policy.config import HumanOmniConfig
    from erv.policy.public import read_config

    checkpoint = None if OmegaConf.is_missing(cfg.policy, "checkpoint") else cfg.policy.checkpoint
    if checkpoint is not None:
        try:
            folder, _ = find_model(checkpoint, cfg.seed)
        except ConfigError as error:
            print(f"policy.checkpoint: {error}; sizes are those of policy.config", file=sys.stderr)
        else:
            return read_config(Path(folder), dict(cfg.policy.upstream or {})), folder
    return HumanOmniConfig(**config.plain(cfg.policy.config)), "policy.config"


def _setup(cfg: DictConfig) -> Setup:
    """The step that `algo`, `policy` and `trainer` describe."""
    from erv.lit.memory import Setup

    algo, policy, trainer = config.plain(cfg.algo), cfg.policy, config.plain(cfg.trainer)
    sampled = "group_size" in algo
    devices = trainer["devices"]
    if not isinstance(devices, int):
        raise ConfigError(f"trainer.devices must be a number for an estimate per device, got {devices!r}")
    processes = devices * trainer.get("num_nodes", 1)
    return Setup(
        train=list(policy.train),
        prompts=max(algo["batch_size"] // processes, 1),
        group_size=algo.get("group_size", 1),
        new_tokens=algo.get("max_new_tokens", 256),
        token_budget=algo.get("token_budget"),
        sampled=sampled,
        reference=sampled and algo["objective"]["beta"] > 0,
        lora=config.plain(policy.lora),
        gradient_checkpointing=policy.gradient_checkpointing,
        dtype=policy.dtype,
        precision=str(trainer["precision"]),
        strategy=str(trainer.get("strategy", "auto")),
        devices=processes,
    )


def _smallest_gpu() -> float | None:
    import torch

    count = torch.cuda.device_count()
    return min((torch.cuda.get_device_properties(i).total_memory for i in range(count)), default=None)


def page(policy: dict[str, Any]) -> list[str]:
    """The same as lines to read."""
    step, total = policy["step"], sum(part["parameters"] for part in policy["parts"].values())
    lines = ["", f"{'part':<22} {'parameters':>15} {'trained':>15}"]
    lines += [f"{name:<22} {p['parameters']:>15,} {p['trained']:>15,}" for name, p in policy["parts"].items()]
    trained = sum(part["trained"] for part in policy["parts"].values())
    lines += [
        f"{'all':<22} {total:>15,} {trained:>15,}", "",
        f"one step: {step['clips']} clips x {step['answers_per_clip']} answers of at most {step['new_tokens']} tokens, "
        f"prompts of {policy['prompt_tokens']} positions, {step['precision']}, {step['strategy']} on {step['devices']} "
        f"device(s), gradient checkpointing {'on' if step['gradient_checkpointing'] else 'off'}", "",
        f"{'one device holds':<22}",
    ]  # fmt: skip
    lines += [f"{name:<22} {spoken_size(size):>15}" for name, size in policy["bytes_per_device"].items() if size]
    card, cached = policy["smallest_card_gb"], policy["cache_bytes_per_clip"]
    fits = {None: "", True: "; it fits here", False: "; it does NOT fit here"}[policy["fits_here"]]
    lines += [
        f"smallest card: {f'{card} GB' if card else f'none of up to {CARDS[-1]} GB'}{fits}",
        f"tower cache: {spoken_size(cached)} a clip, {spoken_size(1000 * cached)} per 1,000 clips",
    ]
    if card is None or policy["fits_here"] is False:
        lines.append(
            "to need less: policy.gradient_checkpointing=true, policy.lora={r: 16}, a smaller algo.token_budget, more devices"
        )
    return lines


def spoken_size(count: float) -> str:
    """Bytes in the unit that fits."""
    for unit, size in (("GB", 1e9), ("MB", 1e6)):
        if count >= size:
            return f"{count / size:,.2f} {unit}"
    return f"{count / 1e3:,.1f} kB"
