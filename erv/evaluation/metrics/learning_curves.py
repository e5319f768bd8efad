"""Read the learning curves that training logged into the run's folder, and measure how they change."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

Curve = tuple[list[float], list[float]]  # steps, values
Curves = Mapping[str, Curve]

_MIN_POINTS = 6  # fewer points have no thirds to compare


def read_curves(folder: Path) -> dict[str, Curve]:
    """Metric -> curve over all starts of the run in `folder`; of steps that a resumed run repeated the later values count."""
    points: dict[str, dict[float, float]] = {}
    for file in sorted((folder / "logs").glob("version_*/metrics.csv"), key=lambda f: int(f.parent.name[8:])):
        with file.open() as lines:
            for row in csv.DictReader(lines):
                for name, value in row.items():
                    if value and row.get("step"):
                        points.setdefault(name, {})[float(row["step"])] = float(value)
    return {name: (list(by_step), list(by_step.values())) for name, by_step in points.items()}


@dataclass(frozen=True)
class Change:
    """Means of a curve's three thirds."""

    first: float
    middle: float
    last: float
    error: float  # standard error of the difference of two of them

    @classmethod
    def of(cls, curve: Curve | None) -> Change | None:
        """The change of a curve, None for one with too few points.

        The noise is estimated from differences of neighbouring points, since a trend would enter a standard deviation.
        """
        if curve is None or len(curve[1]) < _MIN_POINTS:
            return None
        values = np.asarray(curve[1])
        thirds = np.array_split(values, 3)
        noise = float(np.sqrt(np.mean(np.diff(values) ** 2) / 2))
        error = noise * float(np.sqrt(1 / len(thirds[0]) + 1 / len(thirds[2])))
        first, middle, last = (float(third.mean()) for third in thirds)
        return cls(first, middle, last, error)

    def rises(self, min_gain: float, since: Literal["first", "middle"] = "first") -> bool:
        """Whether the last third is above another by `min_gain` and by twice the error."""
        gain = self.last - (self.first if since == "first" else self.middle)
        return gain >= min_gain and gain > 2 * self.error
