"""Run the jobs of a grid: plain processes, a few at a time, shown as rows of one table."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

State = Literal["waiting", "running", "done", "done before", "failed", "stopped"]
_STYLES: Mapping[State, str] = {
    "running": "cyan",
    "done": "green",
    "done before": "dim",
    "failed": "red",
    "stopped": "yellow",
}
_POLL_S = 0.2
_GRACE_S = 60  # between SIGTERM and SIGKILL: time to save a checkpoint
_LOG_LINES = 15  # of a failed job's log that its error message quotes


@dataclass
class Job:
    """One process of a grid and its state.

    Attributes:
        number: Hydra's number of the job.
        title: The overrides in which it differs from the other jobs.
        command: The command line.
        log: The file that stdout and stderr are appended to.
        done: Whether its run was finished before this grid started, so that there is nothing to run.
        started_at: `time.monotonic()` at its start, 0 before.
        seconds: How long it has run, updated by `poll`.
    """

    number: int
    title: str
    command: Sequence[str]
    log: Path
    done: bool = False
    state: State = "waiting"
    started_at: float = 0.0
    seconds: float = 0.0
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def start(self, device: str, environment: Mapping[str, str]) -> None:
        """Start the process with `device` as its CUDA_VISIBLE_DEVICES ("" leaves it unchanged)."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        visible = {"CUDA_VISIBLE_DEVICES": device} if device else {}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # in its own session, Ctrl-C in the terminal reaches the grid only, which then stops its jobs in order; it
                # also makes the pid a process group, so that the job's workers get the signal, too
                start_new_session=True,
                env={**os.environ, **environment, **visible},
            )
        self.state, self.started_at = "running", time.monotonic()

    def poll(self) -> bool:
        """Update `seconds` and `state`; returns whether the process has ended since the last call."""
        if self.process is None or self.state != "running":
            return False
        self.seconds = time.monotonic() - self.started_at
        if (code := self.process.poll()) is None:
            return False
        self.state = "failed" if code else "done"
        return True

    def last_line(self) -> str:
        """The last line of the log; a progress bar rewrites its line after a carriage return, so that counts as a line."""
        lines = self.tail(400).replace("\r", "\n").splitlines()
        return next((line.strip() for line in reversed(lines) if line.strip()), "")

    def tail(self, size: int) -> str:
        """The last `size` bytes of the log."""
        if not self.log.is_file():
            return ""
        with self.log.open("rb") as file:
            file.seek(max(self.log.stat().st_size - size, 0))
            return file.read().decode(errors="replace")


def run_jobs(jobs: Sequence[Job], devices: Sequence[str], environment: Mapping[str, str]) -> None:
    """Run all jobs that are not done, as many at a time as there are `devices`; their `state` says how each ended.

    A job that fails does not stop the others. An exception (Ctrl-C, SIGTERM) stops the running jobs before it propagates.

    Args:
        jobs: The jobs, in the order of their start.
        devices: One CUDA_VISIBLE_DEVICES for each job that may run at a time.
        environment: Variables that every job gets besides those of this process.
    """
    for job in jobs:
        job.state = "done before" if job.done else "waiting"
    waiting, free_devices = [job for job in jobs if not job.done], list(devices)
    device_of: dict[int, str] = {}  # of the running jobs, by number
    with _display(jobs) as show:
        try:
            while waiting or device_of:
                while waiting and free_devices:
                    job = waiting.pop(0)
                    device_of[job.number] = free_devices.pop(0)
                    job.start(device_of[job.number], environment)
                    show(job)
                time.sleep(_POLL_S)
                for job in jobs:
                    if job.poll():
                        free_devices.append(device_of.pop(job.number))
                        show(job)
                show(None)
        finally:
            _stop([job for job in jobs if job.state == "running"])


def _stop(jobs: Sequence[Job]) -> None:
    """Send SIGTERM to the jobs' process groups, and SIGKILL to those that are still running after the grace period."""
    for job in jobs:
        assert job.process is not None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(job.process.pid, signal.SIGTERM)
    deadline = time.monotonic() + _GRACE_S
    for job in jobs:
        assert job.process is not None
        try:
            job.process.wait(max(deadline - time.monotonic(), 0))
        except subprocess.TimeoutExpired:
            os.killpg(job.process.pid, signal.SIGKILL)
        job.state = "stopped"


def failures(jobs: Sequence[Job]) -> str:
    """Describe the failed jobs: for each its log file and the log's last lines, then how many failed."""
    failed = [job for job in jobs if job.state == "failed"]
    texts = []
    for job in failed:
        lines = [line.rsplit("\r", 1)[-1] for line in job.tail(4000).splitlines()]
        log_end = "\n".join(f"  {line}" for line in lines[-_LOG_LINES:])
        texts.append(f"job {job.number} ({job.title}) failed, {job.log}:\n{log_end}")
    texts.append(f"{len(failed)} of {len(jobs)} jobs failed; the same command again runs those only")
    return "\n".join(texts)


@contextlib.contextmanager
def _display(jobs: Sequence[Job]) -> Iterator[Callable[[Job | None], None]]:
    """Show the progress of `jobs` on stderr: a live table in a terminal, else one line for each start and end of a job.

    Yields a function to call with a job that has started or ended, and with None after every poll.
    """
    console = Console(stderr=True)
    done_before = sum(job.done for job in jobs)
    console.print(f"{len(jobs)} jobs{f', {done_before} done before' if done_before else ''}", highlight=False)
    if not console.is_terminal:

        def print_line(job: Job | None) -> None:
            if job is not None:
                duration = f" after {_clock(job.seconds)}" if job.state != "running" else ""
                print(f"job {job.number} ({job.title}): {job.state}{duration}", file=sys.stderr, flush=True)

        yield print_line
        return
    refreshed_at = 0.0
    with Live(_table(jobs), console=console, auto_refresh=False) as live:

        def refresh(job: Job | None) -> None:
            nonlocal refreshed_at
            # between events once a second is enough: each table reads the end of every log
            if job is not None or time.monotonic() - refreshed_at > 1:
                live.update(_table(jobs), refresh=True)
                refreshed_at = time.monotonic()

        try:
            yield refresh
        finally:
            live.update(_table(jobs), refresh=True)


def _table(jobs: Sequence[Job]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("#", justify="right")
    table.add_column("job", overflow="ellipsis", no_wrap=True, ratio=3)
    table.add_column("state", no_wrap=True)
    table.add_column("time", justify="right", no_wrap=True)
    table.add_column("last line", overflow="ellipsis", no_wrap=True, ratio=2, style="dim")
    for job in jobs:
        state = f"[{_STYLES[job.state]}]{job.state}[/]" if job.state in _STYLES else job.state
        duration = _clock(job.seconds) if job.seconds else ""
        last_line = escape(job.last_line()) if job.started_at else ""
        table.add_row(str(job.number), escape(job.title), state, duration, last_line)
    return table


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 3600}:{int(seconds) // 60 % 60:02d}:{int(seconds) % 60:02d}"
