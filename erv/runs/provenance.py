"""Provenance of models: the clips that a model, and the models it was initialised from, were trained on.

Folds of a data set overlap, and data sets share clips (spec: datasets.md, leakage), so an evaluation clip can have been trained
on in an earlier run without any sign of it in the weights. Therefore every saved model has a record, trained_on.json, beside it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from erv.utils.io import write_json

FILE = "trained_on.json"  # in the model's folder


@dataclass(frozen=True, slots=True)
class Training:
    """One training run of a model.

    Attributes:
        stage: towers, verifier, sft or grpo.
        run: The run's signature, the name of its folder.
        clips: The clips it was trained on, as `Corpus.identity` names them.
    """

    stage: str
    run: str
    clips: tuple[str, ...]


def read(model: str | Path) -> list[Training] | None:
    """The training runs of the model in this folder, oldest first; None if it has no record."""
    file = Path(model) / FILE
    if not file.is_file():
        return None
    rows = json.loads(file.read_text())
    return [Training(row["stage"], row["run"], tuple(row["clips"])) for row in rows]


def write(model: str | Path, trainings: Iterable[Training]) -> None:
    """Write the record into the model's folder."""
    write_json(Path(model) / FILE, [asdict(training) for training in trainings])


def overlaps(trainings: Sequence[Training], evaluated: set[str]) -> list[str]:
    """A line of text for every training run that used clips of `evaluated`."""
    lines = []
    for training in trainings:
        clips = sorted(evaluated.intersection(training.clips))
        if clips:
            examples = ", ".join(clips[:3])
            lines.append(
                f"its {training.stage} run {training.run} was trained on {len(clips):,} of them, first {examples}"
            )
    return lines


def reward_verifiers(folder: Path | None) -> set[str]:
    """SHA-256 of the weights of every verifier that rewarded the policy, in the run in `folder` and the runs before it."""
    hashes: set[str] = set()
    while folder is not None:
        environment = folder / "env.json"
        sha256 = json.loads(environment.read_text()).get("verifier_sha256") if environment.is_file() else None
        if sha256:
            hashes.add(sha256)
        folder = policy_run(folder)
    return hashes


def verifier_sha256(verifier: Any) -> str:
    """The SHA-256 of a verifier's weights."""
    from erv.utils.tensors import tensors_sha256  # imports torch

    return tensors_sha256(verifier.model.state_dict())


def policy_run(folder: Path) -> Path | None:
    """The folder of the run whose model was the initial policy of the run in `folder`; None if its config names none."""
    config = folder / "config.yaml"
    policy = (yaml.safe_load(config.read_text()) or {}).get("policy") or {} if config.is_file() else {}
    return Path(policy["checkpoint"]).parent if policy.get("checkpoint") else None
