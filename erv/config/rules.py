"""Rules among the keys of a config that need no model to be checked."""

from __future__ import annotations

from typing import Any


def validation_interval_problem(interval: Any, batches: Any) -> str | None:
    """What is wrong with a validation every `interval` batches in a run of `batches`; None also where either is no number."""
    if not isinstance(interval, int) or not isinstance(batches, int) or interval <= batches:
        return None
    return (
        f"trainer.val_check_interval is the batches from one validation to the next, got {interval} for a run of {batches}: "
        f"set trainer.val_check_interval={batches} or less, or null for one at the end"
    )
