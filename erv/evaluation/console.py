"""Metrics as lines for the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from erv.evaluation.judges.base import Judge
from erv.evaluation.metrics.scores import NAMES
from erv.evaluation.settings import Evaluation
from erv.types import Prediction

if TYPE_CHECKING:
    pass


def spoken(metrics: Mapping[str, Any]) -> Iterator[str]:
    """metrics.json as lines to read: figures with intervals, judges, and what the diagnosis says."""
    for decoding in ("sampled", "greedy"):
        if decoding in metrics:
            yield f"{decoding:8} {_figures(metrics[decoding])}"
            yield from _judges(metrics[decoding])
    for found in metrics.get("diagnosis", ()):
        yield f"! {found['rule']}: {found['finding']}"
        yield f"  {', '.join(f'{name} {value:.3f}' for name, value in found['figures'].items())}"
        yield f"  try: {found['advice']}"


def _figures(figures: Mapping[str, Any]) -> str:
    shown = (name for name in NAMES if figures[name] is not None)
    return "  ".join(f"{name.upper() if len(name) < 4 else name} {_percent(figures, name)}" for name in shown)


def _percent(figures: Mapping[str, Any], name: str) -> str:
    low, high = figures["intervals"][name]
    return f"{100 * figures[name]:.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def _judges(figures: Mapping[str, Any]) -> Iterator[str]:
    for name, found in figures["judges"].items():
        status = ", ".join(f"{status} {100 * share:.1f} %" for status, share in found["verdict_status"].items())
        yield f"         judge {name}: EEA {_percent(found, 'eea')}, FCR {_percent(found, 'fcr')}; {status}"
    for row in figures["agreement"]:
        pairs = (
            (key, row[key]) for key in ("percent", "kappa", "alpha") if key in row and row[key]["value"] is not None
        )
        said = ", ".join(f"{key} {e['value']:.3f} [{e['interval'][0]:.3f}, {e['interval'][1]:.3f}]" for key, e in pairs)
        yield f"         {' and '.join(row['judges'])} agree: {said or 'nothing that both judged'}"


def tell_costs(judges: Sequence[Judge], there: Sequence[Prediction], missing: int, plan: Evaluation) -> None:
    """What judging costs; answers that are not there yet are taken to be as long as they may."""
    longest = " ".join(["word"] * plan.longest)
    texts = [p.think or "" for p in there] + [f"{i} {longest}" for i in range(missing)]
    for judge in judges:
        cost = judge.cost([text for text in texts if text.strip()])
        most = f"; {missing} answers are not there yet and count as {plan.longest} tokens each" if missing else ""
        print(f"judge {judge.name}: {'free of charge' if cost is None else f'{cost}{most}'}")
    print("Nothing was sent (dry_run=true).")
