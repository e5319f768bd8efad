"""Out-of-memory errors of micro-batches: telling them from other errors, and halving the micro-batch."""

from __future__ import annotations

import gc
import logging

import torch

_log = logging.getLogger(__name__)
_CPU_ALLOCATOR_MESSAGE = "DefaultCPUAllocator: can't allocate memory"  # a plain RuntimeError, told by its text alone


class OutOfMemory(RuntimeError):
    """A micro-batch does not fit into memory, and cannot be made smaller."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory was short, of a GPU or of the CPU."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and _CPU_ALLOCATOR_MESSAGE in str(error)
    )


def smaller_budget(budget: int, clips: list[int], message: str, collective_passes: bool = False) -> int:
    """Halve the micro-batch token budget after an out-of-memory error.

    Call it after the `except` block, whose exception holds on to the tensors of the failed pass.

    Args:
        budget: most tokens of a micro-batch so far.
        clips: those of the micro-batch that failed.
        message: what the allocator said.
        collective_passes: other processes are in the middle of the same pass (`Sharding.collective_passes`).

    Raises:
        OutOfMemory: the micro-batch is one clip already, or other processes wait in the same pass.
    """
    if len(clips) < 2:
        raise OutOfMemory(
            f"one clip with all its answers does not fit into memory ({message}): set policy.gradient_checkpointing=true or "
            "policy.lora, or lower algo.group_size or algo.max_new_tokens; the same command goes on from the last checkpoint"
        )
    if collective_passes:
        raise OutOfMemory(
            f"a micro-batch of {len(clips)} clips does not fit into memory ({message}), and processes that share weights out "
            f"cannot begin again alone: set algo.token_budget={budget // 2}; the same command goes on from the last checkpoint"
        )
    gc.collect()  # a failed backward pass leaves reference cycles that hold tensors
    if torch.cuda.is_available():
        torch.cuda.empty_cache()  # its blocks were cut for the larger micro-batch
    _log.warning(
        "memory was short for a micro-batch of %d clips; algo.token_budget is %d from now on, the batch stays as it is",
        len(clips),
        budget // 2,
    )
    return budget // 2
