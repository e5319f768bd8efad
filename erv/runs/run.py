"""A run's folder: where it is, what it was made of, whether it is done; and how one run finds another's checkpoint."""

from __future__ import annotations

import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout

from erv.config.composition import experiments
from erv.config.instantiate import ConfigError
from erv.runs.checkpoints import newest
from erv.utils.io import write_json
from erv.utils.secrets import masked

MODEL = "model"  # the folder inside a run that holds what it trained, in a form that loads anywhere
MEDIA = "media.jsonl"  # the defects of clips that were met, and what was done about each
METRICS = "metrics.json"  # written last: its presence means done
_VERSIONS = ("torch", "lightning", "transformers", "hydra-core", "omegaconf", "torchmetrics", "peft", "av", "spacy")


_LOCAL = (".", "/", "~", "runs/", "models/")  # how paths begin; of these only the last two could be owners on the hub
_SET = (
    "set the key to a run's folder, a folder of runs, the folder of a model (it has a config.json), or a hub id such as "
    "owner/name"
)


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
        """Where to go on from after an interruption, None on a fresh start; see `erv.runs.checkpoints.newest`."""
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
    folder that a model was saved in, or a hub id such as "org/name". "~" is the home folder.
    """
    path = Path(reference).expanduser()
    if (path / METRICS).is_file():
        return str(path / MODEL), path.name
    if (path / "config.json").is_file():
        return os.path.expanduser(reference), reference
    if path.is_dir():
        return _finished_in(path, seed)
    if path.exists():
        raise ConfigError(f"{reference!r} is a file, and a checkpoint is a folder; {_SET}")
    if reason := _taken_for_path(reference, path):
        raise ConfigError(
            f"{reference!r} does not exist; it is taken for a path since {reason}{_made_with(path, seed)}"
        )
    # imported here since it takes 0.1 s; the package exports these names lazily, which mypy does not see
    from huggingface_hub.utils import HFValidationError, validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(reference)
    except HFValidationError as error:
        raise ConfigError(f"{reference!r} is no folder here, and not a hub id either ({error}); {_SET}") from error
    return reference, reference


def _finished_in(path: Path, seed: int) -> tuple[str, str]:
    """The one finished run with this seed in a folder of runs."""
    runs = sorted(file.parent for file in path.glob(f"*/{METRICS}"))
    matching = [run for run in runs if _seed(run) == seed]
    if len(matching) == 1:
        return str(matching[0] / MODEL), matching[0].name
    if matching:
        listed = "\n  ".join(str(run) for run in matching)
        raise ConfigError(f"several finished runs with seed {seed} below {path}; name one of them:\n  {listed}")
    seeds = ", ".join(sorted({str(_seed(run)) for run in runs})) or "none"
    raise ConfigError(
        f"no finished run with seed {seed} in the folder {str(path)!r} (seeds there: {seeds}), which is no model's folder "
        f"either (it has no config.json){_made_with(path, seed)}"
    )


def _taken_for_path(reference: str, path: Path) -> str | None:
    """Why a reference to nothing on this machine cannot have meant a hub id; None where it can."""
    if reference.startswith(_LOCAL):
        return f"it begins with {next(start for start in _LOCAL if reference.startswith(start))}"
    if reference.count("/") > 1:
        return "a hub id has at most one /"
    if "/" in reference and path.parent.is_dir():
        return f"the folder {str(path.parent)!r} exists"
    return None


def _made_with(path: Path, seed: int) -> str:
    """The end of a message: the commands that make the runs `<runs>/<group>/<name>`, where there are any, or what to set."""
    group, stage = path.parent.name, path.name.partition("_")[0]
    known = experiments()
    if f"{stage}_{group}" in known:
        chosen = [f"{stage}_{group}"]
    else:
        chosen = [f"{name} group={shlex.quote(group)}" for name in known if name.startswith(f"{stage}_")]
    if not chosen:
        return f"; {_SET}"
    commands = "".join(f"  python -m erv.train +exp={choice} seed={seed}\n" for choice in chosen)
    return f"; make it with{' one of' if len(chosen) > 1 else ''}\n{commands}or {_SET}"


def _seed(run: Path) -> int | None:
    value = json.loads((run / METRICS).read_text()).get("seed")
    return int(value) if value is not None else None
