"""What a model has seen: the clips that it, and the models it was made from, were trained on.

Folds of a data set overlap, and data sets share clips (spec: datasets.md, leakage), so that weights carry evaluation clips
from one run to the next without a trace. Every model written here has such a trace beside it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from erv.utils.io import write_json

FILE = "trained_on.json"


@dataclass(frozen=True, slots=True)
class Training:
    """One run that shaped a model: its stage, its signature, and the clips it saw, as `Corpus.identity` names them."""

    stage: str
    run: str
    clips: tuple[str, ...]


def read(model: str | Path) -> list[Training] | None:
    """The runs that shaped the model in this folder, the oldest first; None when there is no record."""
    file = Path(model) / FILE
    if not file.is_file():
        return None
    rows = json.loads(file.read_text())
    return [Training(row["stage"], row["run"], tuple(row["clips"])) for row in rows]


def write(model: str | Path, trainings: Iterable[Training]) -> None:
    """Leave the record beside the weights."""
    write_json(Path(model) / FILE, [asdict(training) for training in trainings])


def shared(trainings: Sequence[Training], evaluated: set[str]) -> list[str]:
    """A line for every run that saw clips which are evaluated on now."""
    found = []
    for training in trainings:
        seen = sorted(evaluated.intersection(training.clips))
        if seen:
            few = ", ".join(seen[:3])
            found.append(f"its {training.stage} run {training.run} was trained on {len(seen):,} of them, first {few}")
    return found
