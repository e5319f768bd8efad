"""The environment of a run, recorded in its env.json: commit, library versions, hardware."""

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

_PACKAGES = ("torch", "lightning", "transformers", "hydra-core", "omegaconf", "torchmetrics", "peft", "av", "spacy")


def environment(devices: bool = True) -> dict[str, Any]:
    """Collect what is needed to repeat a run: command, commit with the uncommitted diff, versions, hardware, plugins.

    Values of secret environment variables are masked. `devices` False leaves out the GPUs, so that torch is not imported.
    """
    root = Path(__file__).resolve().parent
    diff = _git(root, "diff", "HEAD")
    return {
        "command": [masked(argument) for argument in sys.argv],
        "commit": _git(root, "rev-parse", "HEAD"),
        "diff": None if diff is None else masked(diff),
        "python": platform.python_version(),
        "versions": {name: metadata.version(name) for name in _PACKAGES},
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "devices": _devices() if devices else None,
        "plugins": list(plugins()),
    }


def _devices() -> list[str]:
    import torch

    return [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]


def update_environment(folder: Path, **values: Any) -> None:
    """Add values that become known later, such as the hash of the initial weights, to the env.json of the run in `folder`."""
    path = folder / "env.json"
    write_json(path, {**(json.loads(path.read_text()) if path.is_file() else {}), **values})


def _git(folder: Path, *arguments: str) -> str | None:
    """The output of a git command in `folder`; None outside a repository (an installed wheel) or without git."""
    try:
        result = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    return result.stdout.strip() if result.returncode == 0 else None
