"""Metrics and costs as lines for the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from erv.evaluation.judges.base import Judge
from erv.evaluation.metrics.definitions import Metric, shown_in
from erv.evaluation.settings import EvaluationSettings
from erv.types import Prediction


def metric_lines(metrics: Mapping[str, Any]) -> Iterator[str]:
    """Format metrics.json: metrics with intervals, judges, and the diagnosis."""
    for decoding in ("sampled", "greedy"):
        if decoding in metrics:
            scores = metrics[decoding]
            shown = [metric for metric in shown_in("console") if scores[metric.name] is not None]
            yield f"{decoding:8} {'  '.join(f'{metric.heading} {_with_interval(scores, metric)}' for metric in shown)}"
            yield from _judge_lines(scores)
    for entry in metrics.get("diagnosis", ()):
        yield f"! {entry['rule']}: {entry['finding']}"
        yield f"  {', '.join(f'{name} {value:.3f}' for name, value in entry['figures'].items())}"
        yield f"  try: {entry['advice']}"


def _with_interval(scores: Mapping[str, Any], metric: Metric) -> str:
    low, high = scores["intervals"][metric.name]
    return f"{metric.format(scores[metric.name])} [{metric.format(low)}, {metric.format(high)}]"


def _judge_lines(scores: Mapping[str, Any]) -> Iterator[str]:
    for name, of_judge in scores["judges"].items():
        shown = ", ".join(f"{metric.heading} {_with_interval(of_judge, metric)}" for metric in shown_in("judge_line"))
        statuses = ", ".join(f"{status} {100 * share:.1f} %" for status, share in of_judge["verdict_status"].items())
        yield f"         judge {name}: {shown}; {statuses}"
    for row in scores["agreement"]:
        estimates = ", ".join(
            f"{key} {row[key]['value']:.3f} [{row[key]['interval'][0]:.3f}, {row[key]['interval'][1]:.3f}]"
            for key in ("percent", "kappa", "alpha")
            if key in row and row[key]["value"] is not None
        )
        yield f"         {' and '.join(row['judges'])} agree: {estimates or 'nothing that both judged'}"


def print_costs(
    judges: Sequence[Judge],
    predictions: Sequence[Prediction],
    missing: int,
    settings: EvaluationSettings,
) -> None:
    """Print what judging costs; answers that are still `missing` are assumed to have the maximum length."""
    longest = " ".join(["word"] * settings.max_answer_tokens)
    texts = [p.think or "" for p in predictions] + [f"{i} {longest}" for i in range(missing)]
    for judge in judges:
        cost = judge.cost([text for text in texts if text.strip()])
        assumed = (
            f"; {missing} answers are not there yet and count as {settings.max_answer_tokens} tokens each"
            if missing
            else ""
        )
        print(f"judge {judge.name}: {'free of charge' if cost is None else f'{cost}{assumed}'}")
    print("Nothing was sent (dry_run=true).")
