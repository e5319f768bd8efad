"""Micro-batches that do not fit into memory: told from other errors, and made smaller."""

from __future__ import annotations

import gc
import logging

import torch

_log = logging.getLogger(__name__)
_SAID_BY_THE_CPU = "DefaultCPUAllocator: can't allocate memory"


class NoRoom(RuntimeError):
    """What cannot be made smaller does not fit into memory."""


def is_shortage(error: BaseException) -> bool:
    """Whether memory was short, of a GPU or of the CPU."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and _SAID_BY_THE_CPU in str(error)
    )


def smaller_budget(budget: int, cut: list[int], message: str, together: bool = False) -> int:
    """Half the tokens of a micro-batch, after that of the clips `cut` did not fit.

    NoRoom when that is one clip already, or when other processes are in the middle of it `together` with this one. Call it
    after the handler of the error, which holds on to the tensors.
    """
    if len(cut) < 2:
        raise NoRoom(
            f"one clip with all its answers does not fit into memory ({message}): set policy.gradient_checkpointing=true or "
            "policy.lora, or lower algo.group_size or algo.max_new_tokens; the same command goes on from the last checkpoint"
        )
    if together:
        raise NoRoom(
            f"a micro-batch of {len(cut)} clips does not fit into memory ({message}), and processes that share weights out "
            f"cannot begin again alone: set algo.token_budget={budget // 2}; the same command goes on from the last checkpoint"
        )
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    _log.warning(
        "memory was short for a micro-batch of %d clips; algo.token_budget is %d from now on, the batch stays as it is",
        len(cut), budget // 2,
    )  # fmt: skip
    return budget // 2
