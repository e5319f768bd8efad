"""Several processes: the shares of one command, and the jobs of a grid (`-m`)."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus, filter_overrides, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

from erv.cli.jobs import Job, failures, run_jobs
from erv.config.composition import config_dir
from erv.errors import ConfigError
from erv.runs.run import METRICS

PARENT = "ERV_GRID"  # the number of the process that started this one as a job of its grid
LOG = "job.log"  # in a run's folder: what its process printed
_OURS = ("hydra/launcher", "hydra/sweeper", "hydra.launcher", "hydra.sweeper", "hydra.sweep", "hydra.mode")


class GridFailed(Exception):
    """Some jobs of a grid failed; the others are done."""


@dataclass(frozen=True)
class Task:
    """What a command does with a config: `main`; `plan` checks the config and names the run's folder without starting it."""

    module: str
    main: Callable[[DictConfig], None]
    plan: Callable[[DictConfig], Path | None] | None

    def __call__(self, cfg: DictConfig) -> None:
        """Run here."""
        self.main(cfg)


class Processes(Launcher):
    """Hydra's launcher for grids: every job is one plain process, a few at once, and nothing is done twice.

    All jobs are checked before the first one starts. `launch.devices` lists what runs at once, each entry the
    CUDA_VISIBLE_DEVICES of a job ([0,1]: two jobs, ["0,1","2,3"]: two jobs of two GPUs); on a CPU the entries are places.
    A job that is done is skipped, one that was interrupted goes on, and one that fails does not stop the others.
    """

    __module__ = "hydra_plugins.erv"  # Hydra takes launchers from this package only; ours is registered, not found

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Called by Hydra."""
        self.context, self.task, self.config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run the jobs; their results in order, GridFailed for those that failed. Raises ConfigError when one cannot run."""
        setup_globals()
        configs = [self._compose(list(o), initial_job_idx + i) for i, o in enumerate(job_overrides)]
        folders = self._plan(configs)
        varying = _varying([filter_overrides(o) for o in job_overrides])
        logs = [
            folder / LOG if folder else Path(self.config.hydra.sweep.dir) / f"{i}.log"
            for i, folder in enumerate(folders)
        ]
        jobs = [
            Job(initial_job_idx + i, varying[i], self._command(job_overrides[i]), log, _done(folder) or log in logs[:i])
            for i, (folder, log) in enumerate(zip(folders, logs, strict=True))
        ]
        Path(self.config.hydra.sweep.dir).mkdir(parents=True, exist_ok=True)  # sweepers that search write into it
        launch = OmegaConf.to_container(configs[0].launch) if "launch" in configs[0] else {}
        devices = _devices(launch if isinstance(launch, dict) else {})
        run_jobs(jobs, devices, {PARENT: str(os.getpid())})
        failed = GridFailed(failures(jobs))
        return [
            _result(config, failed if job.state == "failed" else _objective(folder, config))
            for job, folder, config in zip(jobs, folders, configs, strict=True)
        ]

    def _compose(self, job: list[str], number: int) -> DictConfig:
        config = self.context.config_loader.load_sweep_config(self.config, job)
        with open_dict(config):
            config.hydra.job.id, config.hydra.job.num = str(number), number
        return config

    def _plan(self, configs: Sequence[DictConfig]) -> list[Path | None]:
        """The folder of every job; ConfigError that lists what is wrong with any of them, each thing once."""
        from hydra.core.hydra_config import HydraConfig

        plan = getattr(self.task, "plan", None)
        folders: list[Path | None] = []
        wrong: dict[str, list[str]] = {}
        for config in configs:
            HydraConfig.instance().set_config(config)
            own = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
            try:
                folders.append(plan(own) if plan else None)
            except ConfigError as error:
                wrong.setdefault(str(error), []).append(" ".join(filter_overrides(config.hydra.overrides.task)))
        if wrong:
            told = [f"{message}\n  in {jobs[0]}{_more(len(jobs) - 1)}" for message, jobs in wrong.items()]
            raise ConfigError("\n".join(["no job was started:", *told]))
        return folders

    def _command(self, job: Sequence[str]) -> list[str]:
        hydra = [o for o in self.config.hydra.overrides.hydra if not o.lstrip("+").startswith(_OURS)]
        own = ["--config-dir", folder] if (folder := config_dir()) else []
        return [sys.executable, "-m", getattr(self.task, "module", ""), *own, *hydra, *job]


def register() -> None:
    """Make `hydra/launcher=processes` known to Hydra, which looks for launchers by a name in the package hydra_plugins."""
    Plugins.instance().register(Processes)
    package, _, module = Processes.__module__.partition(".")
    if package not in sys.modules:  # no other plugin is installed
        sys.modules[package] = ModuleType(package)
    setattr(sys.modules[package], module, sys.modules[__name__])
    sys.modules[Processes.__module__] = sys.modules[__name__]


def _devices(launch: dict[Any, Any]) -> list[str]:
    """What the jobs run on: one entry for each that runs at once."""
    devices = launch.get("devices")
    if devices is None:
        return [os.environ.get("CUDA_VISIBLE_DEVICES", "")]
    if not isinstance(devices, list) or not devices:
        raise ConfigError(f"launch.devices is a list such as [0,1] or ['0,1','2,3'], or null; got {devices!r}")
    return [str(device) for device in devices]


def _done(folder: Path | None) -> bool:
    return folder is not None and (folder / METRICS).is_file()


def _varying(jobs: Sequence[Sequence[str]]) -> list[str]:
    """Of every job the overrides that not all jobs have."""
    common = set.intersection(*(set(job) for job in jobs))
    return [" ".join(o for o in job if o not in common) or " ".join(job) for job in jobs]


def _more(count: int) -> str:
    return f"\n  and {count} more" if count else ""


def _objective(folder: Path | None, config: DictConfig) -> float | None:
    """What a sweeper that searches reads: `launch.objective`, a dotted figure of metrics.json."""
    objective = OmegaConf.select(config, "launch.objective")
    if objective is None or folder is None:
        return None
    value = json.loads((folder / METRICS).read_text())
    for key in objective.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    if not isinstance(value, int | float):
        raise ConfigError(f"launch.objective={objective} is no figure of {folder / METRICS}; try sampled.fcr")
    return value


def _result(config: DictConfig, value: float | GridFailed | None) -> JobReturn:
    """Hydra raises what a failed job returns, once all have ended."""
    status = JobStatus.FAILED if isinstance(value, GridFailed) else JobStatus.COMPLETED
    return JobReturn(overrides=list(config.hydra.overrides.task), cfg=config, status=status, _return_value=value)
