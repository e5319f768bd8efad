"""Decoding in processes of its own: a file that crashes or hangs a decoder costs that file, nothing else.

Every worker has a pipe of its own. Pools that share one (multiprocessing.Pool, pebble) hang or break when a worker is killed
while it holds the pipe, and concurrent.futures gives up on all work when one worker dies.
"""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import os
import resource
import signal
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import TracebackType
from typing import Generic, TypeVar

from erv.data.media.container import Limits
from erv.data.media.decode import Decoded, Facts, decode
from erv.types import Wanted

Key = TypeVar("Key")
_AHEAD = 3  # clips per worker that are decoded or waiting, so that memory stays bounded
_DEATHS = 8  # workers in a row that may end without an answer before the machine is suspected, not the files
_START_S = 120.0  # for a worker to begin, on a machine that is busy


class DecodersDie(Exception):
    """Worker after worker ended without an answer; the message says what to look at."""


@dataclass(slots=True)
class _Job(Generic[Key]):
    number: int
    key: Key
    video: str
    audio: str | None
    attempts: int = 0


@dataclass(slots=True)
class _Worker(Generic[Key]):
    process: BaseProcess
    pipe: Connection
    deadline: float
    ready: bool = False
    job: _Job[Key] | None = None


@dataclass(slots=True)
class Decoders(Generic[Key]):
    """`workers` processes that decode. `timeout_s` is the time for one clip, `memory_gb` a worker's address space.

    Workers begin with the first clip and end with `close` (or the `with` block).
    """

    wanted: Wanted
    limits: Limits
    workers: int
    timeout_s: float = 60.0
    memory_gb: float = 8.0
    _alive: list[_Worker[Key]] = field(default_factory=list)
    _deaths: int = 0

    def __enter__(self) -> Decoders[Key]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:  # fmt: skip
        self.close()

    def close(self) -> None:
        """End the workers."""
        for worker in self._alive:
            _end(worker)
        self._alive = []

    def map(self, clips: Iterable[tuple[Key, str, str | None]]) -> Iterator[tuple[Key, Decoded]]:
        """Decode (key, video, audio) one by one: (key, what was found), in order, a few clips ahead.

        A clip that ends its worker, or holds it for longer than `timeout_s`, is tried once more in a new one, and then has
        that as its problem. Raises DecodersDie when `_DEATHS` workers in a row ended without any answer between.
        """
        jobs = (_Job(number, *clip) for number, clip in enumerate(clips))
        again: deque[_Job[Key]] = deque()
        found: dict[int, tuple[Key, Decoded]] = {}
        given = taken = 0
        exhausted = False
        try:
            while True:
                while (not exhausted and given - taken < _AHEAD * self.workers) or again:
                    worker = self._idle()
                    if worker is None:
                        break
                    job = again.popleft() if again else next(jobs, None)
                    if job is None:
                        exhausted = True
                        break
                    given += job.attempts == 0
                    self._give(worker, job)
                while taken in found:
                    yield found.pop(taken)
                    taken += 1
                if exhausted and taken == given:
                    return
                for job, answer in self._collect():
                    if answer is None:
                        again.append(job)
                    else:
                        found[job.number] = (job.key, answer)
        finally:
            for worker in [w for w in self._alive if w.job is not None]:  # the caller stopped early
                self._drop(worker)

    def _idle(self) -> _Worker[Key] | None:
        """A worker without work; a new one while there are too few."""
        idle = next((w for w in self._alive if w.ready and w.job is None), None)
        starting = any(not w.ready for w in self._alive)
        if idle is None and not starting and len(self._alive) < self.workers:
            self._alive.append(self._new())
        return idle

    def _new(self) -> _Worker[Key]:
        spawn = multiprocessing.get_context("spawn")  # a fork of a process with torch's threads may never wake up
        ours, theirs = spawn.Pipe()
        process = spawn.Process(
            target=_serve, args=(theirs, self.wanted, self.limits, self.timeout_s, self.memory_gb), name="erv-decoder",
            daemon=True,
        )  # fmt: skip
        process.start()
        theirs.close()  # so that the worker's end closes when it dies
        return _Worker(process, ours, time.monotonic() + _START_S)

    def _give(self, worker: _Worker[Key], job: _Job[Key]) -> None:
        job.attempts += 1
        worker.job, worker.deadline = job, time.monotonic() + self.timeout_s
        with contextlib.suppress(OSError):  # it has just died, which `_collect` finds out
            worker.pipe.send((job.video, job.audio))

    def _collect(self) -> list[tuple[_Job[Key], Decoded | None]]:
        """What workers have answered since; None for a clip that is to be tried again."""
        busy = [w for w in self._alive if w.job is not None or not w.ready]
        pause = max(0.0, min((w.deadline for w in busy), default=0.0) - time.monotonic())
        heard = {id(pipe) for pipe in wait([w.pipe for w in busy], pause)}
        answers: list[tuple[_Job[Key], Decoded | None]] = []
        for worker in busy:
            if id(worker.pipe) in heard:
                answers += self._hear(worker)
            elif time.monotonic() >= worker.deadline:
                self._drop(worker)
                answers += self._lost(
                    worker, f"takes longer than {self.timeout_s:g} s to decode; raise media.timeout_s"
                )
        return answers

    def _hear(self, worker: _Worker[Key]) -> list[tuple[_Job[Key], Decoded | None]]:
        try:
            answer = worker.pipe.recv()
        except (EOFError, OSError):
            self._drop(worker)
            self._deaths += 1
            ending = _ending(worker.process.exitcode)
            if self._deaths >= _DEATHS:
                raise DecodersDie(
                    f"{self._deaths} decoding processes in a row ended ({ending}) without an answer"
                    f"{f', the last on {worker.job.video}' if worker.job else ''}; that is rather this machine than the files: "
                    "look at its memory, lower media.workers or raise media.memory_gb"
                ) from None
            return self._lost(worker, f"ended its decoding process ({ending})")
        self._deaths = 0
        if not worker.ready:
            worker.ready = True
            return []
        job, worker.job = worker.job, None
        return [(job, answer)] if job else []

    def _lost(self, worker: _Worker[Key], problem: str) -> list[tuple[_Job[Key], Decoded | None]]:
        """The clip of a worker that is gone: once more, or given up."""
        job = worker.job
        if job is None:
            return []
        if job.attempts < 2:  # the machine may have been busy, or the worker killed from outside
            return [(job, None)]
        video, audio = (problem if name in self.wanted.modalities else None for name in ("video", "audio"))
        return [(job, Decoded(Facts(video_problem=video, audio_problem=audio, settled=False)))]

    def _drop(self, worker: _Worker[Key]) -> None:
        _end(worker)
        self._alive.remove(worker)


def _end(worker: _Worker[Key]) -> None:
    worker.process.kill()
    worker.process.join()
    worker.pipe.close()


def _ending(code: int | None) -> str:
    return signal.Signals(-code).name if code is not None and code < 0 else f"exit code {code}"


def _serve(pipe: Connection, wanted: Wanted, limits: Limits, timeout_s: float, memory_gb: float) -> None:
    """A worker: bounded memory, no part in the terminal's Ctrl-C, first to go when the machine runs out of memory."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    size = int(memory_gb * 2**30)
    resource.setrlimit(resource.RLIMIT_AS, (size, size))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if os.path.exists("/proc/self/oom_score_adj"):
        with open("/proc/self/oom_score_adj", "w") as score:
            score.write("900")
    pipe.send(None)
    while True:
        try:
            video, audio = pipe.recv()
        except EOFError:  # the trainer is gone
            return
        signal.alarm(math.ceil(2 * timeout_s) + 5)  # ends a worker that hangs after the trainer was killed
        found = decode(video, audio, wanted, limits)
        signal.alarm(0)
        pipe.send(found)
