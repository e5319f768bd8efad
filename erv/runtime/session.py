"""What train, evaluate and predict have in common: a run opened from its config, and the evaluation that ends it."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from filelock import FileLock
from lightning.fabric.utilities.rank_zero import rank_zero_only as lightning_rank_zero_only
from lightning.pytorch import seed_everything
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from omegaconf import DictConfig

from erv.cli.shards import Shard
from erv.config.composition import overrides
from erv.evaluation.evaluator import FailedVerdicts
from erv.evaluation.predictions import IncompletePredictions
from erv.runs.run import Run
from erv.runtime import leakage
from erv.runtime.components import Parts
from erv.runtime.evaluation import is_evaluated
from erv.runtime.planning import disk_errors, plan_run

_log = logging.getLogger(__name__)


@contextmanager
def open_stage(cfg: DictConfig, shard: Shard | None = None) -> Iterator[tuple[Run | None, Parts]]:
    """Check the config, find the run's folder and hold it; the run is None when it is done already.

    What a user can put right (a missing corpus, an unfit verifier, a judge's key, …) becomes a ConfigError. A process that
    makes a share only holds that share, and leaves the folder to the one that it works for.
    """
    tree, run = plan_run(cfg)
    quiet(tree)
    with disk_errors():
        parts = Parts(tree, run.folder)
        if parts.ranks.size > 1 and parts.device == "cuda":
            torch.cuda.set_device(parts.ranks.device)
        if not parts.ranks.leads:
            follow(tree, parts)
            yield (None if run.done else run), parts
        elif run.done:
            _log.info("done already: %s", run.folder)
            yield None, parts
        elif shard is not None:
            run.folder.mkdir(parents=True, exist_ok=True)
            with FileLock(run.folder / f".lock-{shard[0]}-of-{shard[1]}"):
                seed_everything(tree["seed"], workers=True, verbose=False)
                yield run, parts
        else:
            if is_evaluated(tree):
                _ = parts.judges, parts.settings  # what cannot be is said before anything is trained
                leakage.refuse(parts)
            with run.open(tree, overrides()):
                seed_everything(tree["seed"], workers=True, verbose=False)
                _log.info("run %s", run.folder)
                yield run, parts


def quiet(tree: Mapping[str, Any]) -> None:
    """As many CPU threads as the config says, and the libraries' tips and notes about their own settings go."""
    torch.set_num_threads(int(tree["launch"]["threads"]))
    for name in ("lightning.pytorch", "lightning.fabric", "huggingface_hub"):
        logging.getLogger(name).setLevel(logging.WARNING)
        logging.getLogger(name).propagate = False  # it has a handler of its own
    logging.getLogger("lightning.fabric.strategies.launchers").setLevel(logging.INFO)  # says which rank has failed
    for message in (".*treespec.*", ".*does not have many workers.*", ".*not resumable.*",
                    ".*sync_dist=True.*", ".*before the ``update`` method.*"):  # fmt: skip
        warnings.filterwarnings("ignore", message=message)


def follow(tree: Mapping[str, Any], parts: Parts) -> None:
    """In a process that only trains: what it would write and say, rank 0 does."""
    for found in (rank_zero_only, lightning_rank_zero_only):
        found.rank = parts.ranks.rank  # loggers ask before the trainer is there
    logging.getLogger().setLevel(logging.ERROR)
    seed_everything(tree["seed"], workers=True, verbose=False)


def finish_run(run: Run, parts: Parts, measured: Mapping[str, Any]) -> None:
    """Write metrics.json: from then on the run is done."""
    run.finish({**parts.identity(), **measured})
    _log.info("done: %s", run.folder)


@contextmanager
def refuse_incomplete() -> Iterator[None]:
    """End with a message and exit code 1 when an evaluation is not complete: nothing is wrong with the config."""
    try:
        yield
    except (FailedVerdicts, IncompletePredictions) as error:
        sys.exit(f"erv: {error}")
