"""Hydra's launcher for grids (`-m`): every job is one plain process."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus, filter_overrides, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

from erv.cli.jobs import Job, failures, run_jobs
from erv.config.composition import config_dir
from erv.errors import ConfigError
from erv.runs.run import METRICS, Run

PARENT = "ERV_GRID"  # environment variable of a job: the process id of its grid
LOG = "job.log"  # in a run's folder: stdout and stderr of its process
# overrides of Hydra's own config that configure the grid, not its jobs
_GRID_OVERRIDES = ("hydra/launcher", "hydra/sweeper", "hydra.launcher", "hydra.sweeper", "hydra.sweep", "hydra.mode")


class GridFailed(Exception):
    """Some jobs of a grid failed; the others are done."""


@dataclass(frozen=True)
class Task:
    """The task function that Hydra gets: calling it runs the command in this process; a grid also reads its fields.

    Attributes:
        module: The module to start jobs with (`python -m MODULE`).
        main: Runs the command.
        plan: Checks a config and returns the folder of its run, without starting it.
    """

    module: str
    main: Callable[[DictConfig], None]
    plan: Callable[[DictConfig], Path | None] | None

    def __call__(self, cfg: DictConfig) -> None:
        """Run the command in this process."""
        self.main(cfg)


class Processes(Launcher):
    """Launcher `hydra/launcher=processes`: runs every job of a grid as a process, a few at a time.

    All jobs are checked before the first one starts. `launch.devices` has an entry for each job that runs at a time: its
    CUDA_VISIBLE_DEVICES ([0,1]: two jobs, ["0,1","2,3"]: two jobs of two GPUs); on a CPU only the number of entries counts.
    A job that is done is skipped, an interrupted one resumes, and one that fails does not stop the others.
    """

    __module__ = "hydra_plugins.erv"  # Hydra accepts launchers of this package only; see `register`

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Store what `launch` needs; called by Hydra."""
        self.context, self.task, self.config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run the jobs; called by Hydra once, or by a sweeper that searches once for each batch of jobs.

        Args:
            job_overrides: The overrides of each job.
            initial_job_idx: The number of the first job.

        Returns:
            A result for each job. That of a failed job holds a GridFailed, which Hydra raises after all have ended.

        Raises:
            ConfigError: If any of the jobs cannot run; then none was started.
        """
        setup_globals()
        configs = []
        for number, overrides in enumerate(job_overrides, start=initial_job_idx):
            config = self.context.config_loader.load_sweep_config(self.config, list(overrides))
            with open_dict(config):
                config.hydra.job.id, config.hydra.job.num = str(number), number
            configs.append(config)
        folders = self._plan(configs)
        sweep_folder = Path(self.config.hydra.sweep.dir)
        logs = [folder / LOG if folder else sweep_folder / f"{i}.log" for i, folder in enumerate(folders)]
        titles = _differences([filter_overrides(overrides) for overrides in job_overrides])
        jobs = []
        for i, (folder, log) in enumerate(zip(folders, logs, strict=True)):
            # two jobs with the same log are the same run, which only the first of them makes
            done = (folder is not None and Run(folder).done) or log in logs[:i]
            jobs.append(Job(initial_job_idx + i, titles[i], self._command(job_overrides[i]), log, done))
        sweep_folder.mkdir(parents=True, exist_ok=True)  # sweepers that search write into it
        run_jobs(jobs, _devices(configs[0]), {PARENT: str(os.getpid())})
        failed = GridFailed(failures(jobs))
        results = []
        for job, folder, config in zip(jobs, folders, configs, strict=True):
            value = failed if job.state == "failed" else _objective(folder, config)
            status = JobStatus.FAILED if job.state == "failed" else JobStatus.COMPLETED
            overrides = list(config.hydra.overrides.task)
            results.append(JobReturn(overrides=overrides, cfg=config, status=status, _return_value=value))
        return results

    def _plan(self, configs: Sequence[DictConfig]) -> list[Path | None]:
        """The folder of each job's run; a ConfigError lists the problems of all jobs, each problem once."""
        plan = getattr(self.task, "plan", None)
        folders: list[Path | None] = []
        problems: dict[str, list[str]] = {}  # message -> the jobs that have the problem
        for config in configs:
            HydraConfig.instance().set_config(config)
            job_config = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
            try:
                folders.append(plan(job_config) if plan else None)
            except ConfigError as error:
                problems.setdefault(str(error), []).append(" ".join(filter_overrides(config.hydra.overrides.task)))
        if problems:
            lines = ["no job was started:"]
            for message, titles in problems.items():
                lines.append(f"{message}\n  in {titles[0]}")
                if len(titles) > 1:
                    lines.append(f"  and {len(titles) - 1} more")
            raise ConfigError("\n".join(lines))
        return folders

    def _command(self, overrides: Sequence[str]) -> list[str]:
        """The command line of one job."""
        hydra = [o for o in self.config.hydra.overrides.hydra if not o.lstrip("+").startswith(_GRID_OVERRIDES)]
        folder = config_dir()
        user_configs = ["--config-dir", folder] if folder else []
        return [sys.executable, "-m", getattr(self.task, "module", ""), *user_configs, *hydra, *overrides]


def register() -> None:
    """Register `Processes` with Hydra, and make it importable as hydra_plugins.erv.Processes.

    Hydra finds launchers by scanning the namespace package hydra_plugins, and accepts no others; a package of that name in
    this project's wheel would be imported by every Hydra application on the machine.
    """
    Plugins.instance().register(Processes)
    package, _, module = Processes.__module__.partition(".")
    if package not in sys.modules:  # no other plugin is installed
        sys.modules[package] = ModuleType(package)
    setattr(sys.modules[package], module, sys.modules[__name__])
    sys.modules[Processes.__module__] = sys.modules[__name__]


def _devices(config: DictConfig) -> list[str]:
    """The CUDA_VISIBLE_DEVICES of each job that runs at a time: launch.devices, or one job on what this process sees."""
    launch: Any = OmegaConf.to_container(config.launch) if "launch" in config else None
    devices = launch.get("devices") if isinstance(launch, dict) else None
    if devices is None:
        return [os.environ.get("CUDA_VISIBLE_DEVICES", "")]
    if not isinstance(devices, list) or not devices:
        raise ConfigError(f"launch.devices is a list such as [0,1] or ['0,1','2,3'], or null; got {devices!r}")
    return [str(device) for device in devices]


def _differences(jobs: Sequence[Sequence[str]]) -> list[str]:
    """For each job the overrides that not all jobs have in common; all of its overrides if there are no others."""
    common = set.intersection(*(set(overrides) for overrides in jobs))
    return [" ".join(o for o in overrides if o not in common) or " ".join(overrides) for overrides in jobs]


def _objective(folder: Path | None, config: DictConfig) -> float | None:
    """The value that a sweeper optimises: `launch.objective` is a dotted key of the run's metrics.json."""
    objective = OmegaConf.select(config, "launch.objective")
    if objective is None or folder is None:
        return None
    value = json.loads((folder / METRICS).read_text())
    for key in objective.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    if not isinstance(value, int | float):
        raise ConfigError(f"launch.objective={objective} is no figure of {folder / METRICS}; try sampled.fcr")
    return value
