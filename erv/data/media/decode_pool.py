"""Decoding in worker processes: a file that crashes or hangs a decoder costs that file, nothing else.

Every worker has its own pipe. Pools that share one (multiprocessing.Pool, pebble) hang or break when a worker is killed while
it holds the pipe, and concurrent.futures gives up on all work when one worker dies.
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
from erv.data.media.decode import DecodedClip, MediaInfo, decode
from erv.errors import UserError
from erv.types import MediaSpec

Key = TypeVar("Key")
_PREFETCH = 3  # clips per worker that are decoded or being decoded and not taken yet: bounds the memory
_MAX_DEATHS = 8  # workers in a row that may die without an answer before the machine is suspected, not the files
_MAX_ATTEMPTS = 2  # for a clip: the machine may have been busy, or the worker killed from outside
_START_TIMEOUT_S = 120.0  # for a worker to start, on a busy machine


class DecodersDie(UserError):
    """Worker after worker died without an answer; the message says what to look at."""


@dataclass(slots=True)
class _Job(Generic[Key]):
    number: int
    """Position in the order of results."""
    key: Key
    video: str
    audio: str | None
    attempts: int = 0


@dataclass(slots=True)
class _Worker(Generic[Key]):
    process: BaseProcess
    pipe: Connection
    deadline: float
    """Time (monotonic clock) by which it must have started, or answered."""
    ready: bool = False
    """Whether it has started."""
    job: _Job[Key] | None = None
    """The clip that it decodes."""

    def kill(self) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()


@dataclass(slots=True)
class DecoderPool(Generic[Key]):
    """Worker processes that decode clips. They start with the first clip, and end with `close` or the `with` block."""

    spec: MediaSpec
    """What is decoded of a clip."""
    limits: Limits
    num_workers: int
    timeout_s: float = 60.0
    """For one clip."""
    memory_gb: float = 8.0
    """Address space of a worker, in GiB."""
    _workers: list[_Worker[Key]] = field(default_factory=list)
    _deaths: int = 0  # workers that died since the last answer

    def __enter__(self) -> DecoderPool[Key]:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the workers."""
        for worker in self._workers:
            worker.kill()
        self._workers = []

    def map(self, clips: Iterable[tuple[Key, str, str | None]]) -> Iterator[tuple[Key, DecodedClip]]:
        """Decode (key, video, audio) one by one, a few clips ahead; yields (key, decoded clip) in the order of `clips`.

        A clip that kills its worker, or takes longer than `timeout_s`, is tried once more in a new worker; then that is its
        problem. Raises DecodersDie when `_MAX_DEATHS` workers in a row died without any answer between.
        """
        jobs = (_Job(number, *clip) for number, clip in enumerate(clips))
        retries: deque[_Job[Key]] = deque()
        results: dict[int, tuple[Key, DecodedClip]] = {}
        submitted = yielded = 0
        exhausted = False
        try:
            while True:
                while (not exhausted and submitted - yielded < _PREFETCH * self.num_workers) or retries:
                    worker = self._idle_worker()
                    if worker is None:
                        break
                    job = retries.popleft() if retries else next(jobs, None)
                    if job is None:
                        exhausted = True
                        break
                    submitted += job.attempts == 0
                    job.attempts += 1
                    worker.job, worker.deadline = job, time.monotonic() + self.timeout_s
                    with contextlib.suppress(OSError):  # it has just died, which `_collect` notices
                        worker.pipe.send((job.video, job.audio))
                while yielded in results:
                    yield results.pop(yielded)
                    yielded += 1
                if exhausted and yielded == submitted:
                    return
                for job, decoded in self._collect():
                    if decoded is None:
                        retries.append(job)
                    else:
                        results[job.number] = (job.key, decoded)
        finally:
            for worker in [w for w in self._workers if w.job is not None]:  # the caller stopped early
                self._remove(worker)

    def _idle_worker(self) -> _Worker[Key] | None:
        """A worker without a job; starts another one if there is none, one at a time, up to `num_workers`."""
        idle = next((w for w in self._workers if w.ready and w.job is None), None)
        starting = any(not w.ready for w in self._workers)
        if idle is None and not starting and len(self._workers) < self.num_workers:
            spawn = multiprocessing.get_context(
                "spawn"
            )  # a forked child can deadlock on locks that torch's threads held
            pipe, worker_end = spawn.Pipe()
            process = spawn.Process(
                target=_serve,
                args=(worker_end, self.spec, self.limits, self.timeout_s, self.memory_gb),
                name="erv-decoder",
                daemon=True,
            )
            process.start()
            worker_end.close()  # the worker holds the only other copy, so that `pipe` reports its death
            self._workers.append(_Worker(process, pipe, time.monotonic() + _START_TIMEOUT_S))
        return idle

    def _collect(self) -> list[tuple[_Job[Key], DecodedClip | None]]:
        """Wait for the next answer, death or deadline; the finished jobs, with None for one that is to be tried again."""
        busy = [w for w in self._workers if w.job is not None or not w.ready]
        pause = max(0.0, min((w.deadline for w in busy), default=0.0) - time.monotonic())
        readable = {id(pipe) for pipe in wait([w.pipe for w in busy], pause)}
        finished: list[tuple[_Job[Key], DecodedClip | None]] = []
        for worker in busy:
            if id(worker.pipe) in readable:
                finished += self._receive(worker)
            elif time.monotonic() >= worker.deadline:
                self._remove(worker)
                finished += self._failed(
                    worker, f"takes longer than {self.timeout_s:g} s to decode; raise media.timeout_s"
                )
        return finished

    def _receive(self, worker: _Worker[Key]) -> list[tuple[_Job[Key], DecodedClip | None]]:
        """Read a worker's answer, or notice that it died."""
        try:
            decoded = worker.pipe.recv()
        except (EOFError, OSError):
            self._remove(worker)
            self._deaths += 1
            code = worker.process.exitcode
            ending = signal.Signals(-code).name if code is not None and code < 0 else f"exit code {code}"
            if self._deaths >= _MAX_DEATHS:
                raise DecodersDie(
                    f"{self._deaths} decoding processes in a row ended ({ending}) without an answer"
                    f"{f', the last on {worker.job.video}' if worker.job else ''}; that is rather this machine than the files: "
                    "look at its memory, lower media.workers or raise media.memory_gb"
                ) from None
            return self._failed(worker, f"ended its decoding process ({ending})")
        self._deaths = 0
        if not worker.ready:  # its first message says that it has started
            worker.ready = True
            return []
        job, worker.job = worker.job, None
        return [(job, decoded)] if job else []

    def _failed(self, worker: _Worker[Key], problem: str) -> list[tuple[_Job[Key], DecodedClip | None]]:
        """The job of a worker that is gone: to be tried again, or finished with `problem`."""
        job = worker.job
        if job is None:
            return []
        if job.attempts < _MAX_ATTEMPTS:
            return [(job, None)]
        video, audio = (problem if name in self.spec.modalities else None for name in ("video", "audio"))
        return [(job, DecodedClip(MediaInfo(video_problem=video, audio_problem=audio, settled=False)))]

    def _remove(self, worker: _Worker[Key]) -> None:
        worker.kill()
        self._workers.remove(worker)


def _serve(pipe: Connection, spec: MediaSpec, limits: Limits, timeout_s: float, memory_gb: float) -> None:
    """Decode the clips that come through `pipe`, until it is closed: the main loop of a worker."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that started it
    size = int(memory_gb * 2**30)
    resource.setrlimit(resource.RLIMIT_AS, (size, size))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if os.path.exists("/proc/self/oom_score_adj"):
        with open("/proc/self/oom_score_adj", "w") as score:
            score.write("900")  # when the machine runs out of memory, the kernel kills this process before the trainer
    pipe.send(None)
    while True:
        try:
            video, audio = pipe.recv()
        except EOFError:  # the trainer is gone
            return
        signal.alarm(math.ceil(2 * timeout_s) + 5)  # ends a worker that hangs after the trainer was killed
        decoded = decode(video, audio, spec, limits)
        signal.alarm(0)
        pipe.send(decoded)
