"""Which of the processes of a training run this one is, and what a trainer cannot do. Loads no torch.

The processes are started by Lightning (it runs the command again), torchrun or SLURM. Rank 0 leads: it alone holds the run's
folder, writes into it, measures and prints; the others only train.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from erv.distributed.strategies import devices, processes

LEADER = "ERV_LEADER"  # the number of the process that Lightning starts the other ranks from
_SET_BY_LIGHTNING = ("LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class Ranks:
    """Process `rank` of `size` processes, and number `local` of those on this machine; `device` is the number of its GPU."""

    rank: int = 0
    local: int = 0
    size: int = 1
    device: int = 0

    @property
    def leads(self) -> bool:
        """Whether this process writes, measures and prints."""
        return self.rank == 0

    @classmethod
    def of(cls, tree: Mapping[str, Any]) -> Ranks:
        """The place of this process in a run with the config `tree`; commands without a trainer have one process."""
        trainer = tree.get("trainer") or {}
        here, size = devices(trainer), processes(trainer)
        if size == 1:
            return cls()
        local = _number("LOCAL_RANK", "SLURM_LOCALID")
        started = -1 if LEADER in os.environ else _number("RANK", "SLURM_PROCID", default=-1)
        rank = started if started >= 0 else _number("NODE_RANK", "GROUP_RANK") * len(here) + local
        return cls(rank, local, size, here[local % len(here)])


def is_first() -> bool:
    """Whether this process is the first of those that were started together, also before its config is known."""
    return os.environ.get(LEADER) in (None, str(os.getpid())) and _number("RANK", "SLURM_PROCID") == 0


def lead() -> None:
    """Before training: the ranks that Lightning starts from this process end when it does, however that ends."""
    if "LOCAL_RANK" not in os.environ:
        os.environ[LEADER] = str(os.getpid())


def end_with_leader() -> None:
    """In a rank that Lightning started: a process that is killed cannot tell the others, so the system tells them."""
    if leader := os.environ.get(LEADER):
        end_with(int(leader))


def end_with(parent: int) -> None:
    """From now on this process is killed when its parent ends, however that ends; where the system can do so (Linux)."""
    if not sys.platform.startswith("linux"):
        return
    import ctypes

    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before this line
        sys.exit(1)


def part() -> None:
    """After training: this process is on its own again, and so are those that it starts."""
    if os.environ.pop(LEADER, None):
        for name in _SET_BY_LIGHTNING:
            os.environ.pop(name, None)


def _number(*names: str, default: int = 0) -> int:
    """The first of these environment variables that is set."""
    return next((int(os.environ[name]) for name in names if os.environ.get(name)), default)
