"""Where curves go. The only file that knows wandb."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import CSVLogger, WandbLogger

CURVES = "logs"  # below a run's folder: one version_N folder with metrics.csv per start of the run


def csv_logger(folder: str) -> CSVLogger:
    """Curves as `logs/version_N/metrics.csv` in the run's folder; a resumed run writes the next version."""
    return CSVLogger(folder, name=CURVES, flush_logs_every_n_steps=20)


def wandb_logger(
    folder: str,
    run_name: str,
    group: str,
    project: str = "erv",
    entity: str | None = None,
    tags: list[str] | None = None,
) -> WandbLogger:
    """Curves in W&B over `iter`, beside nothing on disk but W&B's own files.

    Set WANDB_MODE=offline to keep them on this machine. A resumed run goes on in the same W&B run.
    """
    identity = Path(folder).name
    logger = WandbLogger(
        name=run_name, save_dir=folder, project=project, entity=entity, group=group, tags=tags, id=identity,
        resume="allow", offline=os.environ.get("WANDB_MODE") == "offline",
    )  # fmt: skip
    experiment: Any = logger.experiment
    experiment.define_metric("iter")
    experiment.define_metric("*", step_metric="iter")
    return logger
