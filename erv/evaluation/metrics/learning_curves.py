"""Curves that training logged, read back from the run's folder, and how they change."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

Curve = tuple[list[float], list[float]]  # steps, values
Curves = Mapping[str, Curve]

_POINTS = 6  # fewer points have no thirds to compare


def read_curves(folder: Path) -> dict[str, Curve]:
    """Metric -> curve over all starts of the run in `folder`; what a resumed run repeated counts once."""
    points: dict[str, dict[float, float]] = {}
    for file in sorted((folder / "logs").glob("version_*/metrics.csv"), key=lambda f: int(f.parent.name[8:])):
        with file.open() as lines:
            for row in csv.DictReader(lines):
                for name, value in row.items():
                    if value and row.get("step"):
                        points.setdefault(name, {})[float(row["step"])] = float(value)
    return {name: (list(found), list(found.values())) for name, found in points.items()}


@dataclass(frozen=True)
class Change:
    """Means of a curve's thirds, and the standard error of the difference of two of them."""

    first: float
    middle: float
    last: float
    error: float

    @classmethod
    def of(cls, curve: Curve | None) -> Change | None:
        """None for a curve with too few points. The error is that of point-to-point noise, which a trend does not enter."""
        if curve is None or len(curve[1]) < _POINTS:
            return None
        values = np.asarray(curve[1])
        parts = np.array_split(values, 3)
        noise = float(np.sqrt(np.mean(np.diff(values) ** 2) / 2))
        error = noise * float(np.sqrt(1 / len(parts[0]) + 1 / len(parts[2])))
        first, middle, last = (float(part.mean()) for part in parts)
        return cls(first, middle, last, error)

    def rises(self, least: float, since: str = "first") -> bool:
        """Whether the last third is above another by `least` and by twice the error."""
        gain = self.last - (self.first if since == "first" else self.middle)
        return gain >= least and gain > 2 * self.error
