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

LEADER = "ERV_LEADER"  # the number of the process that Lightning starts the other ranks from
_STRATEGIES = {"erv.distributed.DDP": "ddp", "erv.distributed.FSDP": "fsdp2"}
SHARING = ("fsdp2", "deepspeed_z2", "deepspeed_z3")  # of weights or of what belongs to them
_PRECISIONS = ("32-true", "bf16-mixed")
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


def problems(tree: Mapping[str, Any]) -> list[str]:
    """What is wrong with a training run's config, or with how its processes were started."""
    trainer, algo = tree.get("trainer") or {}, tree.get("algo") or {}
    size = processes(trainer)
    found = imprecise(trainer)
    if size > 1 and not isinstance(trainer.get("strategy"), Mapping):
        found.append(
            f"trainer.devices={trainer.get('devices')} and trainer.num_nodes={trainer.get('num_nodes', 1)} are {size} processes, "
            f"and trainer.strategy={trainer.get('strategy', 'auto')} does not share out their work; set trainer=ddp"
        )
    batch = algo.get("batch_size")
    if size > 1 and isinstance(batch, int) and batch % size:
        near = [n for n in (batch // size * size, -(-batch // size) * size) if n]
        found.append(
            f"algo.batch_size is the batch of all processes together and must divide by their number; got "
            f"algo.batch_size={batch} for {size} processes (trainer.devices x trainer.num_nodes); set algo.batch_size="
            f"{' or '.join(map(str, near))}, or another trainer.devices"
        )
    found += _not_shared_out(tree) if strategy(trainer) in SHARING else []
    started = _number("WORLD_SIZE", default=size) if "TORCHELASTIC_RUN_ID" in os.environ else size
    if started != size:
        found.append(
            f"torchrun started {started} processes and the config says {size} (trainer.devices x trainer.num_nodes); make them "
            "equal: trainer=ddp, trainer.devices as --nproc-per-node, trainer.num_nodes as --nnodes"
        )
    return found


def imprecise(trainer: Mapping[str, Any]) -> list[str]:
    """What is wrong with trainer.precision."""
    given = str(trainer.get("precision", "32-true"))
    if given in _PRECISIONS:
        return []
    return [
        f"trainer.precision is {' or '.join(_PRECISIONS)}, got {given}: what is trained stays in fp32, as bf16 rounds away every "
        "step of less than 1/512 of a weight, and fp16 would want its loss scaled; to need less memory set "
        "trainer.precision=bf16-mixed and policy.dtype=bfloat16 (frozen weights), with policy.lora={r: 16} or trainer=fsdp2"
    ]


def strategy(trainer: Mapping[str, Any] | None) -> str:
    """How the processes of `trainer` work together, by the name of the config that says so: "ddp", "fsdp2", …; or "auto"."""
    given = (trainer or {}).get("strategy", "auto")
    target = str(given.get("_target_", "")) if isinstance(given, Mapping) else str(given)
    if target == "erv.distributed.DeepSpeed" and isinstance(given, Mapping):
        return f"deepspeed_z{given.get('stage')}"
    return _STRATEGIES.get(target, target)


def _not_shared_out(tree: Mapping[str, Any]) -> list[str]:
    """What trainers that share weights out cannot do."""
    name = strategy(tree.get("trainer"))
    if tree.get("stage") not in ("sft", "grpo"):
        return [
            f"trainer={name} shares a policy's weights out, in the stages sft and grpo; got stage={tree.get('stage')}: what it "
            "trains fits on any device, set trainer=ddp"
        ]
    trained = [part for part in ("vision_tower", "audio_tower") if part in (tree.get("policy") or {}).get("train", ())]
    if trained:
        return [
            f"trainer={name} trains no towers, and policy.train has {', '.join(trained)}: leave them out, or set trainer=ddp"
        ]
    return []


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
