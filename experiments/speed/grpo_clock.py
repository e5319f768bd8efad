"""CPU and wall seconds of the parts of a step, and their medians."""

from __future__ import annotations

import json
import resource
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

PARTS = ("rollout", "reference", "forward", "backward")


class Clock:
    """`with clock.part("rollout"):` inside a step, `clock.step(wall, cpu)` at its end; parts may not overlap."""

    def __init__(self) -> None:
        self.current: dict[str, float] = defaultdict(float)
        self.steps: list[dict[str, float]] = []

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Add the CPU seconds of the block to `name`."""
        start = time.process_time()
        try:
            yield
        finally:
            self.current[name] += time.process_time() - start

    @contextmanager
    def step(self) -> Iterator[None]:
        """A whole step."""
        self.current = defaultdict(float)
        cpu, wall = time.process_time(), time.perf_counter()
        yield
        self.current["total"] = time.process_time() - cpu
        self.current["wall"] = time.perf_counter() - wall
        self.steps.append(self.current)

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """`function`, its seconds counted as part `name`."""

        def run(*args: Any, **kwargs: Any) -> Any:
            with self.part(name):
                return function(*args, **kwargs)

        return run

    def report(self, warm_up: int, tokens: int, **about: Any) -> str:
        """Medians per step after `warm_up` steps as one JSON object; `tokens` is what one step samples."""
        rows = self.steps[warm_up:]
        median = {name: statistics.median(row[name] for row in rows) for name in (*PARTS, "total", "wall")}
        found = {f"{name}_cpu_s": round(median[name], 4) for name in (*PARTS, "total")}
        found["total_wall_s"] = round(median["wall"], 4)
        found["tokens_per_s"] = round(tokens / median["total"], 1)
        found["peak_rss_mb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)
        return json.dumps({**about, "steps": len(rows), **found})
