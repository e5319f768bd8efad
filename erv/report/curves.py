"""Learning curves of the runs, from their logs."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import Any

from erv.report.runs import Result

CURVES = {
    "train/reward": "Reward of the sampled answers",
    "train/rewards/explanation/mean": "R_E of the sampled answers",
    "train/rewards/answer/mean": "Right answers among the sampled",
    "dev/fcr": "FCR on dev clips",
    "dev/war": "WAR on dev clips",
    "dev/eea": "EEA on dev clips",
    "dev/epc": "EPC on dev clips",
    "dev/verifier_reward": "R_E by the verifier, on dev clips",
    "dev/audit_reward": "R_E by the audit verifier, on dev clips",
    "dev/judge_reward": "R_E by the judge, on dev clips",
    "train/kl": "KL to the reference",
    "train/entropy": "Entropy of the answers",
    "train/completions/mean_length": "Tokens of an answer",
    "train/completions/neutral_share": "Share of neutral sentences",
    "train/completions/distinct": "Share of distinct rationales in a group",
    "train/frac_reward_zero_std": "Share of groups without reward spread",
    "train/loss": "Training loss",
    "dev/loss": "Loss on dev clips",
}
_POINTS = 1000  # of a line; more cannot be told apart on a screen


def curves(runs: Sequence[Result]) -> list[dict[str, Any]]:
    """One chart per metric that some run logged, with the points of each run."""
    found = []
    for metric, title in CURVES.items():
        lines = [line for place, run in enumerate(runs) if (line := _line(run, metric, place))]
        if lines:
            ends = "; ".join(f"{runs[line['run']].label} ends at {line['y'][-1]:.3g}" for line in lines)
            found.append({"metric": metric, "title": title, "lines": lines, "said": ends})
    return found


def _line(run: Result, metric: str, place: int) -> dict[str, Any] | None:
    if metric == "train/loss" and "train/reward" in run.curves:
        return None  # GRPO's says nothing: its gradient is that of the advantages
    steps, values = run.curves.get(metric, ([], []))
    points = [(x, y) for x, y in zip(steps, values, strict=True) if isfinite(y)]
    if not points:
        return None
    every = -(-len(points) // _POINTS)
    kept = points[::every] if points[-1] in points[::every] else [*points[::every], points[-1]]
    return {"run": place, "x": [x for x, _ in kept], "y": [float(f"{y:.5g}") for _, y in kept]}
