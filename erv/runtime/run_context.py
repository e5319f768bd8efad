"""What the metrics of a run are compared with: its training curves, and the metrics of the run that its policy began as."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from erv.evaluation.evaluator import Context
from erv.evaluation.metrics.learning_curves import read_curves
from erv.evaluation.settings import DEFAULT_MAX_NEW_TOKENS
from erv.runs.provenance import policy_run
from erv.runs.resolve import training_config
from erv.runs.run import METRICS


def context(folder: Path, taught: Collection[str] = ()) -> Context:
    """What the figures of the run in `folder` are seen against: its training's curves, and the figures its policy began with.

    A run that only evaluates has the curves of the run that its policy's checkpoint is of.
    """
    training = folder if (folder / "logs").is_dir() else _began_with(folder)
    start = _began_with(training)
    figures = json.loads((start / METRICS).read_text()) if start else {}
    curves = read_curves(training) if training else None
    return Context(taught, curves, figures.get("sampled") or figures.get("greedy"))


def _began_with(folder: Path | None) -> Path | None:
    """The finished run whose model the run in `folder` loaded, where its config names one."""
    run = policy_run(folder) if folder else None
    return run if run and (run / METRICS).is_file() else None


def answer_length(tree: Mapping[str, Any]) -> int:
    """The most tokens of an answer where `tree` does not say: as in the policy's training, else the default."""
    trained = training_config(tree).get("evaluation") or {}
    return int(trained.get("max_new_tokens") or DEFAULT_MAX_NEW_TOKENS)
