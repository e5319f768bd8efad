"""Logging to Weights & Biases; the only file of training that imports wandb."""

from __future__ import annotations

import json
import logging
import os
import re
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import wandb
from lightning.pytorch.loggers.logger import Logger, rank_zero_experiment
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from erv.training.callbacks.counters import ITER, SAMPLES, over_iterations

_log = logging.getLogger(__name__)
COMPLETIONS = "completions"
_ARTIFACT_TYPES = {"verifier": "verifier"}  # by stage; the artifact of any other stage is a "model"


class WandbLogger(Logger):
    """Logs curves, completions and artifacts of one run, whose W&B id is `<name>-<signature>`; a resumed run continues it.

    Online when there is a key and a network, otherwise offline, which one line reports; WANDB_MODE overrides both.

    Args:
        folder: the run's folder, in which W&B keeps its files.
        resolved: the whole config.
        upload: send the files of models and labels; without it their hashes and paths, with the same lineage.
    """

    def __init__(
        self,
        folder: str,
        resolved: Mapping[str, Any],
        group: str,
        run_name: str,
        project: str = "erv",
        entity: str | None = None,
        tags: list[str] | None = None,
        upload: bool = False,
    ) -> None:
        super().__init__()
        self.folder, self.resolved, self.group, self.run_name = Path(folder), resolved, group, run_name
        self.project, self.entity, self.tags, self.upload = project, entity, list(tags or ()), upload
        self._run: Any = None
        self._defined: set[str] = set()
        self._table: Any = None

    @property
    def name(self) -> str:
        """The project."""
        return self.project

    @property
    def version(self) -> str:
        """The run's id."""
        return artifact_name(self.resolved["name"], self.folder.name)

    @property
    def save_dir(self) -> str:
        """The run's folder, in which W&B keeps its files."""
        return str(self.folder)

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The W&B run, started on first use, on rank 0 only."""
        if self._run is None:
            os.environ.setdefault("WANDB_DATA_DIR", str(self.folder / "wandb"))  # files that wait to be sent
            wandb.setup(wandb.Settings(show_info=False))
            self._run = self._start()
            for axis in (ITER, SAMPLES):
                self._run.define_metric(axis)
            for kind, source in inputs(self.resolved):
                self._use(self._artifact(kind, source))
        return self._run

    def _start(self) -> Any:
        """Start online if possible, else offline, and log which."""
        mode = os.environ.get("WANDB_MODE")
        if mode == "disabled":
            return self._init(None)
        reason = f"WANDB_MODE={mode}" if mode in ("offline", "dryrun") else why_offline()
        if reason is None:
            try:
                run = self._init(None)
                _log.info("W&B: %s", run.url)
                return run
            except wandb.Error as error:
                reason = str(error).splitlines()[0]
        run = self._init("offline")
        _log.info("W&B is offline (%s); to send the run later: wandb sync %s", reason, run.settings.sync_dir)
        return run

    def _init(self, mode: Literal["offline"] | None) -> Any:
        settings = wandb.Settings(
            disable_git=True, quiet=True, silent=mode == "offline", init_timeout=30, reinit="finish_previous"
        )
        return wandb.init(
            id=self.version,
            name=self.run_name,
            project=self.project,
            entity=self.entity,
            group=self.group,
            job_type=self.resolved["stage"],
            tags=self.tags,
            dir=str(self.folder),
            resume="allow",
            mode=mode,
            config={**self.resolved, **circumstances(self.folder)},
            settings=settings,
        )

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Log `metrics`, each over `iter`; its axis is defined by exact name, since a glob pattern would include the axes."""
        named, _ = over_iterations(metrics, step)
        for name in named.keys() - self._defined - {ITER, SAMPLES}:
            self.experiment.define_metric(name, step_metric=ITER)
            self._defined.add(name)
        self.experiment.log(named)

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Nothing: the run was started with the whole config."""

    @rank_zero_only
    def log_completions(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Append rows to the table of completions; only the new ones are sent."""
        if self._table is None:
            self._table = wandb.Table(columns=list(rows[0]), log_mode="INCREMENTAL", allow_mixed_types=True)
        for row in rows:
            self._table.add_data(*row.values())
        self.experiment.log({COMPLETIONS: self._table, ITER: rows[0]["iter"]})

    @rank_zero_only
    def finish(self, model: Path) -> None:
        """Log the trained model as an artifact, and finish the run."""
        artifact = self._artifact(_ARTIFACT_TYPES.get(self.resolved["stage"], "model"), str(model))
        self.experiment.log_artifact(artifact, aliases=["latest", self.folder.name])
        self.experiment.finish()

    def _artifact(self, kind: str, source: str) -> Any:
        """An artifact of a folder, a file or a hub id, named after it: the run that makes it and those that use it agree."""
        path = Path(source)
        name = artifact_name(*path.parts[-3:-1]) if path.name == "model" else artifact_name(*path.parts[-2:])
        artifact = wandb.Artifact(name, kind)
        if not path.exists():
            artifact.add_reference(f"https://huggingface.co/{source}", checksum=False)
        elif not self.upload:
            artifact.add_reference(path.resolve().as_uri())
        elif path.is_dir():
            artifact.add_dir(str(path), policy="immutable", skip_cache=True)
        else:
            artifact.add_file(str(path), policy="immutable", skip_cache=True)
        return artifact

    def _use(self, artifact: Any) -> None:
        if self._run.offline:  # use_artifact raises; this writes its record, which `wandb sync` sends
            self._run._log_artifact(artifact, is_user_created=True, use_after_commit=True)
        else:
            self._run.use_artifact(artifact)


def why_offline() -> str | None:
    """Why nothing can be sent now, or None; never asks for a key at the terminal."""
    host = wandb.setup().settings.base_url
    try:
        urllib.request.urlopen(host, timeout=5).close()
    except urllib.error.HTTPError:
        pass  # the host is reachable
    except OSError as error:
        return f"{host} cannot be reached: {getattr(error, 'reason', error)}"
    try:
        return None if wandb.login(prompt=False) else "no API key: set WANDB_API_KEY"
    except wandb.Error as error:
        return str(error).splitlines()[0]


def artifact_name(*words: str) -> str:
    """Join words into a name that W&B allows."""
    return re.sub(r"[^\w.-]", "_", "-".join(words))[-128:]


def inputs(resolved: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(artifact type, path or hub id) of what the run uses: weights, verifier, labels."""
    policy = (resolved.get("policy") or {}).get("checkpoint")
    verifier = resolved.get("verifier") or {}
    weights = (verifier.get("model") or {}).get("checkpoint")
    labels = ((verifier.get("data") or {}).get("files") or {}).values() if resolved["stage"] == "verifier" else ()
    sources = [("model", policy), ("verifier", weights), *(("labels", file) for file in labels)]
    return [(kind, str(source)) for kind, source in sources if source]


def circumstances(folder: Path) -> dict[str, Any]:
    """Commit, dirty flag and hardware, from the run's env.json."""
    env = json.loads((folder / "env.json").read_text())
    hardware = {key: env[key] for key in ("platform", "cpus", "devices")}
    return {"commit": env["commit"], "dirty": None if env["diff"] is None else bool(env["diff"]), "hardware": hardware}
