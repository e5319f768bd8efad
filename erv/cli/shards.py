"""Shares of one evaluation that several processes make."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence

from erv.config.composition import overrides
from erv.errors import ConfigError


def spread(module: str, devices: int, *shares: Sequence[str]) -> None:
    """Run this command again in `devices` processes, on a GPU each where there are any; ConfigError when one fails.

    `shares[k]` are the overrides that process `k` gets besides those of this command; the last ones are for all that remain.
    A launcher's choice of GPUs stays: the processes share what CUDA_VISIBLE_DEVICES leaves.
    """
    from torch import cuda

    visible = [g for g in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if g]
    visible = visible or [str(k) for k in range(cuda.device_count())]
    processes = []
    for k in range(devices):
        command = [sys.executable, "-m", module, *overrides(), *shares[min(k, len(shares) - 1)]]
        gpu = {"CUDA_VISIBLE_DEVICES": visible[k % len(visible)]} if visible else {}
        processes.append(subprocess.Popen(command, env={**os.environ, **gpu}))
    codes = [process.wait() for process in processes]
    failed = [str(k) for k, code in enumerate(codes) if code]
    if failed:
        raise ConfigError(f"process {', '.join(failed)} of {devices} failed, see above; the same command again goes on")


Shard = tuple[int, int]  # which share of how many


def share(text: str | None) -> Shard | None:
    """(k, n) of `k/n`; ConfigError for anything else."""
    if text is None:
        return None
    first, _, last = str(text).partition("/")
    if not (first.isdigit() and last.isdigit() and int(first) < int(last)):
        raise ConfigError(f"shard is k/n with k from 0 to n - 1, such as 0/4; got {text!r}")
    return int(first), int(last)
