"""Versions, GPUs, disks, and which keys are set."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from erv.runs.environment import environment

KEYS = ("OPENAI_API_KEY", "GEMINI_API_KEY", "WANDB_API_KEY", "HF_TOKEN")  # never their values


def describe(places: Mapping[str, Any]) -> dict[str, Any]:
    """What is here; `places` are folders by name, whose disks are looked at."""
    known = environment()
    folders = {name: Path(str(value)).absolute() for name, value in places.items()}
    return {
        **{name: known[name] for name in ("python", "platform", "cpus", "devices", "versions", "commit")},
        "free_gb": {n: round(shutil.disk_usage(_existing(p)).free / 1e9, 1) for n, p in folders.items()},
        "keys": {name: bool(os.environ.get(name)) for name in KEYS},
    }


def _existing(path: Path) -> Path:
    return next(folder for folder in (path, *path.parents) if folder.exists())


def page(found: Mapping[str, Any]) -> list[str]:
    """The same as lines to read."""
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    gpus = ", ".join(found["devices"]) or "none"
    return [
        f"python {found['python']} on {found['platform']}, {found['cpus']} CPUs, GPUs: {gpus}",
        versions,
        "free disk: " + ", ".join(f"{name} {free:,} GB" for name, free in found["free_gb"].items()),
        "keys: " + ", ".join(f"{name} {'set' if there else 'not set'}" for name, there in found["keys"].items()),
    ]
