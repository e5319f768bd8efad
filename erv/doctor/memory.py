"""What a training step would need of a device. Nothing is trained, downloaded or allocated."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from erv import config
from erv.errors import ConfigError
from erv.runtime import memory_check, preflight

if TYPE_CHECKING:
    from erv.policy.humanomni.config import HumanOmniConfig

CARDS = (16, 24, 40, 48, 80, 96, 141, 192)  # GB of memory of common accelerators


def describe(cfg: DictConfig) -> dict[str, Any]:
    """Parameters, bytes per device and the smallest card, for the step that `cfg` describes."""
    from erv.training import memory

    tree = _tree(cfg)
    if problems := preflight.imprecise(tree["trainer"]):
        raise ConfigError(problems[0])
    sizes, source = _sizes(tree["policy"], tree["seed"])
    setup = memory_check.setup_of(tree, _processes(tree["trainer"]))
    bytes_of = memory.estimate(sizes, setup)
    needed = bytes_of["peak"] + memory_check.RESERVED
    here = memory_check.smallest_here()
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
        "smallest_card_gb": next((size for size in CARDS if needed <= size * 1e9), None),
        "fits_here": None if here is None else needed <= here,
        "cache_bytes_per_clip": sizes.feature_bytes,
    }  # fmt: skip


def _sizes(policy: dict[str, Any], seed: int) -> tuple[HumanOmniConfig, str]:
    """As `memory_check.sizes_of`; those of policy.config, and a word, where the checkpoint is not on this machine."""
    try:
        return memory_check.sizes_of(policy, seed)
    except ConfigError as error:
        print(f"policy.checkpoint: {error}; sizes are those of policy.config", file=sys.stderr)
        return memory_check.sizes_of({**policy, "checkpoint": None}, seed)


def _tree(cfg: DictConfig) -> dict[str, Any]:
    """The plain config of the step; a policy whose checkpoint was not named has none."""
    unnamed = {"checkpoint": None} if OmegaConf.is_missing(cfg.policy, "checkpoint") else {}
    policy = config.plain(OmegaConf.merge(cfg.policy, unnamed))
    return {"algo": config.plain(cfg.algo), "trainer": config.plain(cfg.trainer), "policy": policy, "seed": cfg.seed}


def _processes(trainer: dict[str, Any]) -> int:
    if not isinstance(trainer["devices"], int):
        raise ConfigError(f"trainer.devices must be a number for an estimate per device, got {trainer['devices']!r}")
    return int(trainer["devices"] * trainer.get("num_nodes", 1))


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
    lines += [
        f"{name:<22} {memory_check.spoken_size(size):>15}" for name, size in policy["bytes_per_device"].items() if size
    ]
    size, cached = policy["smallest_card_gb"], policy["cache_bytes_per_clip"]
    fits = {None: "", True: "; it fits here", False: "; it does NOT fit here"}[policy["fits_here"]]
    lines += [
        f"smallest card: {f'{size} GB' if size else f'none of up to {CARDS[-1]} GB'}{fits}",
        f"tower cache: {memory_check.spoken_size(cached)} a clip, {memory_check.spoken_size(1000 * cached)} per 1,000 clips",
    ]
    if size is None or policy["fits_here"] is False:
        lines.append(f"to need less: {memory_check.LESS}")
    return lines
