"""The end of every evaluation: answers are read and judged, counted, and written to the run's folder."""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from erv.config.instantiate import ConfigError
from erv.evaluation.evaluator import Context, Evaluation, judged, measure, read, refuse_failed, split
from erv.evaluation.judges.base import Judge
from erv.evaluation.judges.human import export_sheet
from erv.evaluation.judges.verifier import VerifierJudge
from erv.evaluation.metrics.learning_curves import read_curves
from erv.evaluation.metrics.scores import NAMES
from erv.evaluation.metrics.summary import Settings
from erv.evaluation.predictions import merged, read_parts, write
from erv.llm.client import CircuitOpen
from erv.runs.run import METRICS
from erv.taxonomy import Taxonomy
from erv.types import Clip, Prediction
from erv.utils.io import write_lines

if TYPE_CHECKING:
    from erv.rewards.composite import TotalReward

_log = logging.getLogger(__name__)
CLIPS = "clips.jsonl"  # the clips that were answered, in the run's folder
HUMAN = "human"  # folder of the sheet to rate, in the run's folder


def conclude(
    folder: Path, clips: Sequence[Clip], plan: Evaluation, settings: Settings, taxonomy: Taxonomy, judges: Sequence[Judge],
    reward: TotalReward | None, context: Context,
) -> dict[str, Any]:  # fmt: skip
    """Merge the answers in `folder` (IncompletePredictions if some are missing), then `assess` them."""
    found = merged(folder, plan.keys(clips))
    return assess(folder, found, plan, settings, taxonomy, judges, reward, context, clips)


def assess(
    folder: Path, predictions: Sequence[Prediction], plan: Evaluation, settings: Settings, taxonomy: Taxonomy,
    judges: Sequence[Judge], reward: TotalReward | None, context: Context, clips: Sequence[Clip],
) -> dict[str, Any]:  # fmt: skip
    """Read and judge `predictions`, write predictions.jsonl and clips.jsonl, and return the figures.

    Raises FailedVerdicts when too many verdicts failed; what succeeded is kept, and the same again asks for the rest.
    """
    if not judges:
        _log.warning("no judge is set, so EEA, EPC and FCR are not measured")
    found = read(predictions, reward) if reward is not None else split(predictions)
    try:
        found = judged(found, judges)
    except CircuitOpen as error:
        raise ConfigError(
            f"{error}\n  the verdicts that came are kept; the same command again goes on with the rest"
        ) from error
    write(folder, found)
    write_lines(folder / CLIPS, [{"id": c.id, "video": c.video, "label": c.label} for c in clips])
    refuse_failed(found, judges, plan.max_failed)
    return {"evaluation": asdict(plan), **measure(found, taxonomy, judges, settings, reward, context)}


def context(folder: Path, taught: Collection[str] = ()) -> Context:
    """What the figures of the run in `folder` are seen against: its training's curves, and the figures its policy began with.

    A run that only evaluates has the curves of the run that its policy's checkpoint is of.
    """
    training = folder if (folder / "logs").is_dir() else _began_with(folder)
    start = _began_with(training)
    figures = json.loads((start / METRICS).read_text()) if start else {}
    curves = read_curves(training) if training else None
    return Context(taught, curves, figures.get("sampled") or figures.get("greedy"))


def refuse_training_verifier(judges: Sequence[Judge], known: Collection[str]) -> None:
    """ConfigError for a judge with the weights of a verifier whose reward the policy was trained with (hashes in `known`)."""
    for judge in judges:
        if isinstance(judge, VerifierJudge) and weights_of(judge.verifier) in known:
            raise ConfigError(
                f"judge {judge.name!r} is the verifier whose reward the policy was trained with, so it would judge its own work; "
                "train another one on other text (verifier.data.train=audit) and set judge.verifier.verifier.checkpoint to it"
            )


def rewarding(folder: Path | None) -> set[str]:
    """The weights of the verifiers that rewarded the policy of the run in `folder`, there and in the runs it goes back to."""
    found: set[str] = set()
    while folder is not None:
        environment = folder / "env.json"
        weights = json.loads(environment.read_text()).get("verifier_sha256") if environment.is_file() else None
        found |= {weights} if weights else set()
        folder = _policy_of(folder)
    return found


def weights_of(verifier: Any) -> str:
    """The hash of a verifier's weights."""
    from erv.data.media.feature_cache import tensors_sha256

    return tensors_sha256(verifier.model.state_dict())


def _policy_of(folder: Path) -> Path | None:
    """The folder around the model that the run in `folder` loaded, where its config names one."""
    config = folder / "config.yaml"
    policy = (yaml.safe_load(config.read_text()) or {}).get("policy") or {} if config.is_file() else {}
    return Path(policy["checkpoint"]).parent if policy.get("checkpoint") else None


def _began_with(folder: Path | None) -> Path | None:
    """The finished run whose model the run in `folder` loaded, where its config names one."""
    run = _policy_of(folder) if folder else None
    return run if run and (run / METRICS).is_file() else None


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


def export(folder: Path, taxonomy: Taxonomy, items: int, seed: int) -> None:
    """Write a sheet for people to rate from a finished run's answers, and say where it is and how it comes back."""
    if not (folder / METRICS).is_file():
        return
    rows = [p for p in read_parts(folder).values() if p.sample == 0]
    sampled = [p for p in rows if p.decoding == "sampled"]
    sheet = export_sheet(sampled or rows, taxonomy, folder / HUMAN, items, seed)
    print(
        f"Sheet to rate: {sheet}; a copy for each rater. Read back with\n  python -m erv.evaluate predictions={folder} data=… "
        "judge=[…,human] judge.human.sheets=[ALICE.csv,BOB.csv]"
    )
