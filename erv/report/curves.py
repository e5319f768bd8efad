"""Learning curves of the runs, from their logs."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import Any

from erv.evaluation.metrics.definitions import charts
from erv.report.runs import Result

REWARDS = {
    "train/reward": "Reward of the sampled answers",
    "train/rewards/explanation/mean": "R_E of the sampled answers",
    "train/rewards/answer/mean": "Right answers among the sampled",
}
TRAINING = {
    "train/kl": "KL to the reference",
    "train/entropy": "Entropy of the answers",
    "train/completions/mean_length": "Tokens of an answer",
    "train/completions/neutral_share": "Share of neutral sentences",
    "train/completions/distinct": "Share of distinct rationales in a group",
    "train/frac_reward_zero_std": "Share of groups without reward spread",
    "train/loss": "Training loss",
    "dev/loss": "Loss on dev clips",
}
_MAX_POINTS = 1000  # of a line; more cannot be told apart on a screen


def curves(runs: Sequence[Result]) -> list[dict[str, Any]]:
    """One chart per metric that some run logged, with the points of each run."""
    result = []
    for metric, title in (REWARDS | charts() | TRAINING).items():
        lines = [line for i, run in enumerate(runs) if (line := _line(run, metric, i))]
        if lines:
            ends = "; ".join(f"{runs[line['run']].label} ends at {line['y'][-1]:.3g}" for line in lines)
            result.append({"metric": metric, "title": title, "lines": lines, "said": ends})
    return result


def _line(run: Result, metric: str, index: int) -> dict[str, Any] | None:
    if metric == "train/loss" and "train/reward" in run.curves:
        return None  # the value of GRPO's loss means nothing: advantages have mean 0, only its gradient matters
    steps, values = run.curves.get(metric, ([], []))
    points = [(x, y) for x, y in zip(steps, values, strict=True) if isfinite(y)]
    if not points:
        return None
    every = -(-len(points) // _MAX_POINTS)
    thinned = points[::every] if points[-1] in points[::every] else [*points[::every], points[-1]]
    return {"run": index, "x": [x for x, _ in thinned], "y": [float(f"{y:.5g}") for _, y in thinned]}
