"""The folder of a run: its files, its lock, and whether the run is done."""

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

MODEL = "model"  # the folder with the trained model, in a form that can be loaded without the run
MEDIA = "media.jsonl"  # one row for each media defect: the clip, the defect and what was done about it
METRICS = "metrics.json"  # written last: a run is done if and only if it has this file


@dataclass(frozen=True)
class Run:
    """The folder `<runs>/<group>/<name>/<signature>` of one run."""

    folder: Path

    @property
    def done(self) -> bool:
        """Whether the run has finished."""
        return (self.folder / METRICS).is_file()

    @property
    def last_checkpoint(self) -> Path | None:
        """The checkpoint to resume from, None for a fresh start; see `erv.runs.checkpoints.newest`."""
        return newest(self.folder)

    def open(self, config: Mapping[str, Any], overrides: list[str], devices: bool = True) -> FileLock:
        """Create and lock the folder, and write config.yaml, overrides.yaml and env.json.

        Args:
            config: The resolved config.
            overrides: The overrides of the command line.
            devices: Whether env.json lists the GPUs; False for runs that compute nothing, so that torch is not imported.

        Returns:
            The lock, to be released (or used in a `with` statement) when the run ends.

        Raises:
            ConfigError: If another process has the lock.
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
