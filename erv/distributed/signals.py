"""SIGTERM, SIGUSR1 and Ctrl-C end a command in good order, with exit code 143 or 130; the same command resumes later.

Imports no torch.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from types import FrameType

from erv.distributed import ranks

# sent by clusters, supervisors and users; SLURM sends the one that --signal names
SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
Handler = Callable[[int, FrameType | None], None]


class Stopped(SystemExit):
    """A signal ends this process; its work so far is on the disk."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + (signal.SIGINT if number == signal.SIGINT else signal.SIGTERM))
        self.number = number

    def __str__(self) -> str:
        return f"ended by {signal.Signals(self.number).name}; the same command goes on from here"


def stop(number: int, frame: FrameType | None) -> None:
    """Raise `Stopped`: the signal handler of all commands that may end at any moment."""
    raise Stopped(number)


def listen(handler: Handler) -> None:
    """Let `handler` receive the signals; does nothing outside the main thread, which alone may set handlers."""
    if threading.current_thread() is threading.main_thread():
        for number in SIGNALS:
            signal.signal(number, handler)


def tell(end: Stopped) -> None:
    """Print which signal has ended this process; requeue the SLURM job if SIGUSR1 warned that its time is over."""
    print(f"\nerv: {end}", file=sys.stderr)
    job = os.environ.get("SLURM_JOB_ID")
    if job and end.number == signal.SIGUSR1 and ranks.is_first():
        result = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True, check=False)
        print(f"erv: scontrol requeue {job}: {result.stderr.strip() or 'done'}", file=sys.stderr)
