"""The rank of this process in a training run, and how ranks end together. Imports no torch.

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

LEADER = "ERV_LEADER"  # environment variable: the pid of the process from which Lightning starts the other ranks
_SET_BY_LIGHTNING = ("LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class Ranks:
    """The rank of this process."""

    rank: int = 0
    """Number among all processes of the run."""

    local: int = 0
    """Number among those on this machine."""

    size: int = 1
    """How many processes the run has."""

    device: int = 0
    """Number of this process' GPU."""

    @property
    def leads(self) -> bool:
        """Whether this process writes, measures and prints."""
        return self.rank == 0

    @classmethod
    def of(cls, tree: Mapping[str, Any]) -> Ranks:
        """The rank of this process in a run with the config `tree`; commands without a trainer have one process."""
        trainer = tree.get("trainer") or {}
        local_devices, size = devices(trainer), processes(trainer)
        if size == 1:
            return cls()
        local = _number("LOCAL_RANK", "SLURM_LOCALID")
        # SLURM's variables are inherited by ranks that Lightning starts, and say nothing about them
        launched = -1 if LEADER in os.environ else _number("RANK", "SLURM_PROCID", default=-1)
        rank = launched if launched >= 0 else _number("NODE_RANK", "GROUP_RANK") * len(local_devices) + local
        return cls(rank, local, size, local_devices[local % len(local_devices)])


def is_first() -> bool:
    """Whether this process is the first of those that were started together, also before its config is known."""
    return os.environ.get(LEADER) in (None, str(os.getpid())) and _number("RANK", "SLURM_PROCID") == 0


def announce_leader() -> None:
    """Before training: let the ranks that Lightning starts from this process end when it does (`end_with_leader`)."""
    if "LOCAL_RANK" not in os.environ:
        os.environ[LEADER] = str(os.getpid())


def end_with_leader() -> None:
    """In a rank that Lightning started: be killed when the leader ends, also when it is killed and cannot say so."""
    if leader := os.environ.get(LEADER):
        end_with(int(leader))


def end_with(parent: int) -> None:
    """Let the system kill this process when its parent ends, however that ends; where it can do so (Linux)."""
    if not sys.platform.startswith("linux"):
        return
    import ctypes

    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before this line
        sys.exit(1)


def forget_launch() -> None:
    """After training: remove what Lightning set in the environment, which processes started from here would inherit."""
    if os.environ.pop(LEADER, None):
        for name in _SET_BY_LIGHTNING:
            os.environ.pop(name, None)


def _number(*names: str, default: int = 0) -> int:
    """The first of these environment variables that is set."""
    return next((int(os.environ[name]) for name in names if os.environ.get(name)), default)
