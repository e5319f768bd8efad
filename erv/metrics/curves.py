"""Curves that training logged, read back from the run's folder."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

Curve = tuple[list[float], list[float]]  # steps, values
Curves = Mapping[str, Curve]


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
