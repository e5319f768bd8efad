"""Commit, versions and hardware of a run."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from erv.config.targets import plugins
from erv.utils.io import write_json
from erv.utils.secrets import masked

_VERSIONS = ("torch", "lightning", "transformers", "hydra-core", "omegaconf", "torchmetrics", "peft", "av", "spacy")


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
        "plugins": list(plugins()),
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
