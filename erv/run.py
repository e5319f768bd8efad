"""A run's folder: where it is, what it was made of, whether it is done; and how one run finds another's checkpoint."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout

from erv.checkpoints import newest
from erv.composition import experiments
from erv.config import ConfigError
from erv.durable import write_json
from erv.secrets import masked

MODEL = "model"  # the folder inside a run that holds what it trained, in a form that loads anywhere
MEDIA = "media.jsonl"  # the defects of clips that were met, and what was done about each
METRICS = "metrics.json"  # written last: its presence means done
_VERSIONS = ("torch", "lightning", "transformers", "hydra-core", "omegaconf", "torchmetrics", "peft", "av", "spacy")


@dataclass(frozen=True)
class Run:
    """The folder `<runs>/<group>/<name>/<signature>` of one run."""

    folder: Path

    @property
    def done(self) -> bool:
        """Whether the run has finished: its metrics are written last."""
        return (self.folder / METRICS).is_file()

    @property
    def last_checkpoint(self) -> Path | None:
        """Where to go on from after an interruption, None on a fresh start; see `erv.checkpoints.newest`."""
        return newest(self.folder)

    def open(self, config: Mapping[str, Any], overrides: list[str], devices: bool = True) -> FileLock:
        """Make the folder, write what the run is made of, and hold it against a second process with the same run.

        `devices` False is for runs that compute nothing: their env.json names no GPU, and torch is not loaded.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.folder / ".lock", timeout=0)
        try:
            lock.acquire()
        except Timeout as error:
            raise ConfigError(f"another process is working in {self.folder}; wait for it or change the run") from error
        (self.folder / "config.yaml").write_text(yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True))
        (self.folder / "overrides.yaml").write_text(yaml.safe_dump(overrides))
        write_json(self.folder / "env.json", environment(devices))
        return lock

    def finish(self, metrics: Mapping[str, Any]) -> None:
        """Write metrics.json: from now on the run counts as done."""
        write_json(self.folder / METRICS, dict(metrics))


def environment(devices: bool = True) -> dict[str, Any]:
    """Commit, uncommitted diff, versions and hardware: what is needed to make the run again."""
    root = Path(__file__).resolve().parent
    diff = _git(root, "diff", "HEAD")
    return {
        "command": [masked(argument) for argument in sys.argv],
        "commit": _git(root, "rev-parse", "HEAD"),
        "diff": None if diff is None else masked(diff),
        "python": platform.python_version(),
        "versions": {name: metadata.version(name) for name in _VERSIONS},
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "devices": _devices() if devices else None,
    }


def _devices() -> list[str]:
    import torch

    return [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]


def note_environment(folder: Path, **values: Any) -> None:
    """Add to env.json what is known only later, such as the hash of the weights a run began with."""
    path = folder / "env.json"
    write_json(path, {**(json.loads(path.read_text()) if path.is_file() else {}), **values})


def _git(folder: Path, *arguments: str) -> str | None:
    """What git says, None outside a checkout (an installed wheel) or on a machine without git."""
    try:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def find_model(reference: str, seed: int) -> tuple[str, str]:
    """What a checkpoint key points at: (folder or hub id to load, identity for the signature).

    A reference is a run's folder, a folder of runs (of which exactly one finished run with this `seed` must exist), a
    folder that a model was saved in, or a hub id such as "org/name".
    """
    path = Path(reference)
    if (path / METRICS).is_file():
        return str(path / MODEL), path.name
    if (path / "config.json").is_file():
        return reference, reference
    runs = sorted(file.parent for file in path.glob(f"*/{METRICS}"))
    matching = [run for run in runs if _seed(run) == seed]
    if len(matching) == 1:
        return str(matching[0] / MODEL), matching[0].name
    if matching:
        listed = "\n  ".join(str(run) for run in matching)
        raise ConfigError(f"several finished runs with seed {seed} below {reference}; name one of them:\n  {listed}")
    if not path.exists() and reference.count("/") == 1 and not reference.startswith((".", "/", "runs/")):
        return reference, reference
    seeds = sorted({str(_seed(run)) for run in runs})
    raise ConfigError(
        f"no finished run with seed {seed} at {reference!r} (seeds there: {', '.join(seeds) or 'none'}); make it with\n"
        f"  python -m erv.train +exp={_experiment(path)} seed={seed}\n"
        f"or give the folder of a model"
    )


def _experiment(path: Path) -> str:
    """What makes the runs `<runs>/<group>/<name>`: the experiment of that name, or those of its stage."""
    group, stage = path.parent.name, path.name.partition("_")[0]
    if (own := f"{stage}_{group}") in experiments():
        return own
    return f"{'|'.join(name for name in experiments() if name.startswith(f'{stage}_')) or 'NAME'} group={group}"


def _seed(run: Path) -> int | None:
    value = json.loads((run / METRICS).read_text()).get("seed")
    return int(value) if value is not None else None
