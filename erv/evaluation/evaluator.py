"""From predictions to metrics: the verifier and the judges read them, and everything is counted.

The same for a run that has just been trained, for a checkpoint and for predictions made elsewhere; imports no torch.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

from erv.errors import ConfigError
from erv.evaluation.annotate import add_rewards, add_sentences, add_verdicts, judge_rewards
from erv.evaluation.judges.base import Judge
from erv.evaluation.judges.human import HumanJudge
from erv.evaluation.metrics.agreement import cohen_kappa, krippendorff_alpha, percent_agreement
from erv.evaluation.metrics.diagnosis import diagnose
from erv.evaluation.metrics.learning_curves import Curves
from erv.evaluation.metrics.summary import MetricSettings, has_verdict, summarise
from erv.evaluation.predictions import merge_shards, write_predictions
from erv.evaluation.settings import DECODINGS, EvaluationSettings
from erv.llm.client import CircuitOpen
from erv.taxonomy import Taxonomy
from erv.types import Clip, Prediction
from erv.utils.io import write_lines

if TYPE_CHECKING:
    from erv.rewards.composite import CompositeReward

CLIPS_FILE = "clips.jsonl"  # the clips that were answered, in the run's folder

_log = logging.getLogger(__name__)


class FailedVerdicts(Exception):
    """So many verdicts failed that the metrics would not be those of the policy."""


@dataclass(frozen=True)
class Context:
    """What a run's metrics are compared with."""

    taught: Collection[str] = ()  # sentences of the SFT data of its policy
    curves: Curves | None = None  # what its training logged
    start: Mapping[str, Any] | None = None  # metrics of the model that its training started from


def evaluate_folder(
    folder: Path,
    clips: Sequence[Clip],
    evaluation: EvaluationSettings,
    settings: MetricSettings,
    taxonomy: Taxonomy,
    judges: Sequence[Judge],
    reward: CompositeReward | None,
    context: Context,
) -> dict[str, Any]:
    """Merge the answers in `folder` (IncompletePredictions if some are missing), then `evaluate_predictions`."""
    predictions = merge_shards(folder, evaluation.answer_keys(clips))
    return evaluate_predictions(folder, predictions, evaluation, settings, taxonomy, judges, reward, context, clips)


def evaluate_predictions(
    folder: Path,
    predictions: Sequence[Prediction],
    evaluation: EvaluationSettings,
    settings: MetricSettings,
    taxonomy: Taxonomy,
    judges: Sequence[Judge],
    reward: CompositeReward | None,
    context: Context,
    clips: Sequence[Clip],
) -> dict[str, Any]:
    """Add rewards and verdicts to `predictions`, write predictions.jsonl and clips.jsonl, and return the metrics.

    Raises FailedVerdicts when too many verdicts failed; the others are kept, and the same command asks for the rest.
    """
    if not judges:
        _log.warning("no judge is set, so EEA, EPC and FCR are not measured")
    annotated = add_rewards(predictions, reward) if reward is not None else add_sentences(predictions)
    try:
        annotated = add_verdicts(annotated, judges)
    except CircuitOpen as error:
        raise ConfigError(
            f"{error}\n  the verdicts that came are kept; the same command again goes on with the rest"
        ) from error
    write_predictions(folder, annotated)
    write_lines(folder / CLIPS_FILE, [{"id": c.id, "video": c.video, "label": c.label} for c in clips])
    check_verdicts(annotated, judges, evaluation.max_failed)
    metrics = compute_metrics(annotated, taxonomy, judges, settings, reward, context)
    return {"evaluation": asdict(evaluation), **metrics}


def check_verdicts(predictions: Sequence[Prediction], judges: Sequence[Judge], max_failed: float) -> None:
    """Raise FailedVerdicts when a judge failed on more than the share `max_failed`."""
    for judge in judges:
        verdicts = [v for p in predictions for v in p.verdicts if v.judge == judge.name]
        failed = [v for v in verdicts if v.status == "failed"]
        if len(failed) > max_failed * max(len(verdicts), 1):
            raise FailedVerdicts(
                f"{len(failed)} of {len(verdicts)} verdicts of judge {judge.name!r} failed, the first with: {failed[0].reason}. "
                "The evaluation is not complete; the same command again asks for those only, evaluation.max_failed=SHARE "
                "accepts them"
            )


def compute_metrics(
    predictions: Sequence[Prediction],
    taxonomy: Taxonomy,
    judges: Sequence[Judge],
    settings: MetricSettings,
    reward: CompositeReward | None = None,
    context: Context | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Compute metrics.json from annotated predictions: metrics per way of decoding, judges, raters, diagnosis.

    The first of `judges` is the one whose metrics stand at the top level; judges of an earlier evaluation, whose verdicts are
    part of the predictions, come after those.
    """
    context = context or Context()
    with_verdicts = dict.fromkeys(v.judge for p in predictions for v in p.verdicts)
    current = [judge.name for judge in judges if judge.name in with_verdicts]
    names = [*current, *(name for name in with_verdicts if name not in current)]
    free_judge = next((judge for judge in judges if judge.free), None)
    by_decoding: dict[str, Any] = {}
    for decoding in DECODINGS:
        rows = [p for p in predictions if p.decoding == decoding]
        if rows:
            row_judges = [name for name in names if any(has_verdict(p, name) for p in rows)]
            by_decoding[decoding] = summarise(
                rows,
                taxonomy,
                row_judges[0] if row_judges else None,
                settings=settings,
                judges=row_judges,
                taught=context.taught,
                judge_rewards=judge_rewards(rows, free_judge, reward),
                seed=seed,
            )
    described = {judge.name: judge.describe() | _rater_agreement(judge, settings) for judge in judges}
    first = next(iter(by_decoding.values()))  # the sampled answers where there are any
    return {
        "clips": len({p.clip_id for p in predictions}),
        "judge": names[0] if names else None,
        "judges": {name: described.get(name, {"kind": "earlier"}) for name in names},
        "metrics": asdict(settings),
        **by_decoding,
        "diagnosis": [asdict(d) for d in diagnose(first, context.curves, context.start)],
    }


def _rater_agreement(judge: Judge, settings: MetricSettings) -> dict[str, Any]:
    """How far the people behind a human judge agree with each other; empty for other judges."""
    if not isinstance(judge, HumanJudge):
        return {}
    raters, ratings = judge.matrix()
    pairs = [
        {
            "raters": [raters[a], raters[b]],
            "percent": asdict(percent_agreement(ratings[a], ratings[b])),
            "kappa": asdict(cohen_kappa(ratings[a], ratings[b], settings.resamples)),
        }
        for a, b in combinations(range(len(raters)), 2)
    ]
    return {"agreement": pairs, "alpha": asdict(krippendorff_alpha(ratings, settings.resamples))}
