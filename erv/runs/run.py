"""A run's folder: where it is, what it was made of, whether it is done; and how one run finds another's checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout

from erv.errors import ConfigError
from erv.runs.checkpoints import newest
from erv.runs.environment import environment
from erv.utils.io import write_json

MODEL = "model"  # the folder inside a run that holds what it trained, in a form that loads anywhere
MEDIA = "media.jsonl"  # the defects of clips that were met, and what was done about each
METRICS = "metrics.json"  # written last: its presence means done


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
