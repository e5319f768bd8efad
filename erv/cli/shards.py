"""Split the work of one command among several processes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence

from erv.config.composition import overrides
from erv.errors import ConfigError

Shard = tuple[int, int]  # (index, count): the part with this index, from 0, of `count` parts


def run_in_processes(module: str, count: int, *extra_overrides: Sequence[str]) -> None:
    """Run the present command again in `count` processes, each on its own GPU if there are any, and wait for them.

    The GPUs are those that CUDA_VISIBLE_DEVICES leaves, so that a launcher's assignment stays in force.

    Args:
        module: The command (`python -m MODULE`).
        count: How many processes.
        extra_overrides: What each process gets besides the overrides of this command; the last ones are for all further
            processes.

    Raises:
        ConfigError: If a process fails.
    """
    from torch import cuda

    gpus = [gpu for gpu in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if gpu]
    gpus = gpus or [str(k) for k in range(cuda.device_count())]
    processes = []
    for k in range(count):
        extra = extra_overrides[min(k, len(extra_overrides) - 1)]
        command = [sys.executable, "-m", module, *overrides(), *extra]
        environment = {**os.environ, "CUDA_VISIBLE_DEVICES": gpus[k % len(gpus)]} if gpus else dict(os.environ)
        processes.append(subprocess.Popen(command, env=environment))
    codes = [process.wait() for process in processes]
    failed = [str(k) for k, code in enumerate(codes) if code]
    if failed:
        raise ConfigError(f"process {', '.join(failed)} of {count} failed, see above; the same command again goes on")


def parse_shard(text: str | None) -> Shard | None:
    """Parse "k/n" as (k, n); None stays None. Raises ConfigError for anything else."""
    if text is None:
        return None
    index, _, count = str(text).partition("/")
    if not (index.isdigit() and count.isdigit() and int(index) < int(count)):
        raise ConfigError(f"shard is k/n with k from 0 to n - 1, such as 0/4; got {text!r}")
    return int(index), int(count)
