"""What a model has seen: the clips that it, and the models it was made from, were trained on.

Folds of a data set overlap, and data sets share clips (spec: datasets.md, leakage), so that weights carry evaluation clips
from one run to the next without a trace. Every model written here has such a trace beside it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

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


def rewarding(folder: Path | None) -> set[str]:
    """The weights of the verifiers that rewarded the policy of the run in `folder`, there and in the runs it goes back to."""
    found: set[str] = set()
    while folder is not None:
        environment = folder / "env.json"
        weights = json.loads(environment.read_text()).get("verifier_sha256") if environment.is_file() else None
        found |= {weights} if weights else set()
        folder = policy_run(folder)
    return found


def weights_of(verifier: Any) -> str:
    """The hash of a verifier's weights."""
    from erv.utils.tensors import tensors_sha256

    return tensors_sha256(verifier.model.state_dict())


def policy_run(folder: Path) -> Path | None:
    """The folder around the model that the run in `folder` loaded, where its config names one."""
    config = folder / "config.yaml"
    policy = (yaml.safe_load(config.read_text()) or {}).get("policy") or {} if config.is_file() else {}
    return Path(policy["checkpoint"]).parent if policy.get("checkpoint") else None
