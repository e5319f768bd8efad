"""Rules among the keys of a config that need no model to be checked."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any


def validation_interval_problem(interval: Any, batches: Any) -> str | None:
    """What is wrong with a validation every `interval` batches in a run of `batches`; None also where either is no number."""
    if not isinstance(interval, int) or not isinstance(batches, int) or interval <= batches:
        return None
    return (
        f"trainer.val_check_interval is the batches from one validation to the next, got {interval} for a run of {batches}: "
        f"set trainer.val_check_interval={batches} or less, or null for one at the end"
    )


def grpo_settings_problem(settings: Mapping[str, Any], trained: Collection[str]) -> str | None:
    """What contradicts GRPO in its settings (`algo`) and in the parts of the policy that are trained (`policy.train`)."""
    lengths = [settings[key] for key in ("iterations", "epochs") if settings.get(key) is not None]
    if len(lengths) != 1 or lengths[0] <= 0:
        got = " and ".join(map(str, lengths)) or "neither"
        return f"set algo.iterations or algo.epochs above 0 and the other to null; got {got}"
    if settings.get("group_size", 2) < 2:
        return f"algo.group_size is at least 2, got {settings['group_size']}: an advantage compares the answers to one clip"
    towers = [part for part in ("vision_tower", "audio_tower") if part in trained]
    if towers:
        return (
            f"GRPO reads a clip's features once for all its answers and updates, so it trains no towers; policy.train has "
            f"{', '.join(towers)}: leave them out (the paper freezes both), or train them with SFT"
        )
    return None
