"""The jobs of a grid: plain processes, a few at once, each with a line in one table."""

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
_GRACE_S = 60  # from the request to stop to the kill: time to save a checkpoint
_TOLD = 15  # lines of a failed job's log that are shown


@dataclass
class Job:
    """A process to be run: `title` is what sets it apart, `log` the file for what it prints, `done` that nothing is to do."""

    number: int
    title: str
    command: Sequence[str]
    log: Path
    done: bool = False
    state: State = "waiting"
    began: float = 0.0
    seconds: float = 0.0
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def start(self, device: str, environment: Mapping[str, str]) -> None:
        """Begin, on what `device` names for CUDA; a session of its own keeps a terminal's Ctrl-C from it."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        visible = {"CUDA_VISIBLE_DEVICES": device} if device else {}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
                env={**os.environ, **environment, **visible},
            )  # fmt: skip
        self.state, self.began = "running", time.monotonic()

    def ended(self) -> bool:
        """Whether it has ended by now; its state says how."""
        if self.process is None or self.state != "running":
            return False
        self.seconds = time.monotonic() - self.began
        if (code := self.process.poll()) is None:
            return False
        self.state = "failed" if code else "done"
        return True

    def last_line(self) -> str:
        """The end of its log: progress bars write over their line, so it is the text after the last return."""
        lines = self.tail(400).replace("\r", "\n").splitlines()
        return next((line.strip() for line in reversed(lines) if line.strip()), "")

    def tail(self, size: int) -> str:
        """The last `size` bytes of its log."""
        if not self.log.is_file():
            return ""
        with self.log.open("rb") as file:
            file.seek(max(self.log.stat().st_size - size, 0))
            return file.read().decode(errors="replace")


def run_jobs(jobs: Sequence[Job], devices: Sequence[str], environment: Mapping[str, str]) -> None:
    """Run what is not done, one job for each of `devices` at once; their states say how they ended.

    Interrupted (Ctrl-C, SIGTERM), it stops the running ones first; the jobs that are not done can be run again.
    """
    for job in jobs:
        job.state = "done before" if job.done else "waiting"
    waiting, free = [job for job in jobs if not job.done], list(devices)
    running: dict[int, str] = {}
    with _shown(jobs) as tell:
        try:
            while waiting or running:
                while waiting and free:
                    job = waiting.pop(0)
                    running[job.number] = free.pop(0)
                    job.start(running[job.number], environment)
                    tell(job)
                time.sleep(0.2)
                for job in jobs:
                    if job.ended():
                        free.append(running.pop(job.number))
                        tell(job)
                tell(None)
        finally:
            _stop([job for job in jobs if job.state == "running"])


def _stop(jobs: Sequence[Job]) -> None:
    """Ask the jobs' processes to end, and end them when they do not."""
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
    """Which jobs failed, with the end of what each printed."""
    failed = [job for job in jobs if job.state == "failed"]
    told = [f"job {job.number} ({job.title}) failed, {job.log}:\n{_indented(job.tail(4000))}" for job in failed]
    count = f"{len(failed)} of {len(jobs)} jobs failed; the same command again runs those only"
    return "\n".join([*told, count])


def _indented(text: str) -> str:
    lines = [line.rsplit("\r", 1)[-1] for line in text.splitlines()]
    return "\n".join(f"  {line}" for line in lines[-_TOLD:])


@contextlib.contextmanager
def _shown(jobs: Sequence[Job]) -> Iterator[_Tell]:
    """A live table in a terminal, elsewhere a line whenever a job begins or ends."""
    console = Console(stderr=True)
    done = sum(job.done for job in jobs)
    console.print(f"{len(jobs)} jobs{f', {done} done before' if done else ''}", highlight=False)
    if not console.is_terminal:
        yield _Tell(None)
        return
    with Live(_table(jobs), console=console, auto_refresh=False) as live:
        try:
            yield _Tell(lambda: live.update(_table(jobs), refresh=True))
        finally:
            live.update(_table(jobs), refresh=True)


class _Tell:
    """Called with a job that began or ended, or with None when time has passed."""

    def __init__(self, refresh: Callable[[], None] | None) -> None:
        self.refresh, self.last = refresh, 0.0

    def __call__(self, job: Job | None) -> None:
        if self.refresh is not None:
            if job is not None or time.monotonic() - self.last > 1:
                self.refresh()
                self.last = time.monotonic()
        elif job is not None:
            after = f" after {_clock(job.seconds)}" if job.state != "running" else ""
            print(f"job {job.number} ({job.title}): {job.state}{after}", file=sys.stderr, flush=True)


def _table(jobs: Sequence[Job]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("#", justify="right")
    table.add_column("job", overflow="ellipsis", no_wrap=True, ratio=3)
    table.add_column("state", no_wrap=True)
    table.add_column("time", justify="right", no_wrap=True)
    table.add_column("last line", overflow="ellipsis", no_wrap=True, ratio=2, style="dim")
    for job in jobs:
        clock = _clock(job.seconds) if job.seconds else ""
        state = f"[{_STYLES[job.state]}]{job.state}[/]" if job.state in _STYLES else job.state
        table.add_row(str(job.number), escape(job.title), state, clock, escape(job.last_line() if job.began else ""))
    return table


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 3600}:{int(seconds) // 60 % 60:02d}:{int(seconds) % 60:02d}"
