"""From predictions to figures: the verifier reads them, the judges judge them, and everything is counted.

The same for a run that has just been trained, for a checkpoint and for predictions made elsewhere; knows no torch.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from erv.evaluation.judges.base import Judge
from erv.evaluation.judges.human import HumanJudge
from erv.evaluation.metrics.agreement import cohen_kappa, krippendorff_alpha, percent_agreement
from erv.evaluation.metrics.diagnosis import diagnose
from erv.evaluation.metrics.learning_curves import Curves
from erv.evaluation.metrics.summary import Settings, summarise
from erv.taxonomy import Taxonomy
from erv.types import Prediction

if TYPE_CHECKING:
    from erv.rewards.composite import CompositeReward
from pathlib import Path
from typing import TYPE_CHECKING

from erv.errors import ConfigError
from erv.evaluation.annotate import judge_rewards, judged, read, split
from erv.evaluation.predictions import merged, write
from erv.evaluation.settings import DECODINGS, Evaluation
from erv.llm.client import CircuitOpen
from erv.types import Clip
from erv.utils.io import write_lines

if TYPE_CHECKING:
    from erv.rewards.composite import CompositeReward

CLIPS = "clips.jsonl"  # the clips that were answered, in the run's folder

_log = logging.getLogger(__name__)


class FailedVerdicts(Exception):
    """So many verdicts failed that the figures would not be those of the policy."""


def refuse_failed(predictions: Sequence[Prediction], judges: Sequence[Judge], most: float) -> None:
    """Raise FailedVerdicts when a judge failed on more than the share `most`."""
    for judge in judges:
        found = [v for p in predictions for v in p.verdicts if v.judge == judge.name]
        failed = [v for v in found if v.status == "failed"]
        if len(failed) > most * max(len(found), 1):
            raise FailedVerdicts(
                f"{len(failed)} of {len(found)} verdicts of judge {judge.name!r} failed, the first with: {failed[0].reason}. The "
                "evaluation is not complete; the same command again asks for those only, evaluation.max_failed=SHARE accepts "
                "them"
            )


@dataclass(frozen=True)
class Context:
    """What the figures of a run are seen against: the sentences its policy was taught, its curves, and where it started."""

    taught: Collection[str] = ()
    curves: Curves | None = None
    start: Mapping[str, Any] | None = None


def measure(
    predictions: Sequence[Prediction], taxonomy: Taxonomy, judges: Sequence[Judge], settings: Settings,
    reward: CompositeReward | None = None, context: Context | None = None, seed: int = 0,
) -> dict[str, Any]:  # fmt: skip
    """The figures of metrics.json for read and judged predictions: per way of decoding, judges, raters, diagnosis."""
    context = context or Context()
    seen = dict.fromkeys(v.judge for p in predictions for v in p.verdicts)
    own = [judge.name for judge in judges if judge.name in seen]
    names = [*own, *(name for name in seen if name not in own)]  # the others are of an earlier evaluation
    free = next((judge for judge in judges if judge.free), None)
    found: dict[str, Any] = {}
    for decoding in DECODINGS:
        rows = [p for p in predictions if p.decoding == decoding]
        if rows:
            here = [name for name in names if any(v.judge == name for p in rows for v in p.verdicts)]
            main = here[0] if here else None
            found[decoding] = summarise(
                rows, taxonomy, main, settings=settings, judges=here, known=context.taught, seed=seed
            )
            values = judge_rewards(rows, free, reward)
            found[decoding]["judge_reward"] = float(np.mean(values)) if values else None
    described = {judge.name: judge.describe() | _raters(judge, settings) for judge in judges}
    return {
        "clips": len({p.clip_id for p in predictions}),
        "judge": names[0] if names else None,
        "judges": {name: described.get(name, {"kind": "earlier"}) for name in names},
        "metrics": asdict(settings),
        **found,
        "diagnosis": [asdict(d) for d in diagnose(next(iter(found.values())), context.curves, context.start)],
    }


def _raters(judge: Judge, settings: Settings) -> dict[str, Any]:
    """How far the people behind a human judge agree with each other."""
    if not isinstance(judge, HumanJudge):
        return {}
    raters, found = judge.matrix()
    pairs = [
        {"raters": [raters[a], raters[b]], "percent": asdict(percent_agreement(found[a], found[b])),
         "kappa": asdict(cohen_kappa(found[a], found[b], settings.resamples))}
        for a, b in combinations(range(len(raters)), 2)
    ]  # fmt: skip
    return {"agreement": pairs, "alpha": asdict(krippendorff_alpha(found, settings.resamples))}


_log = logging.getLogger(__name__)


def conclude(
    folder: Path, clips: Sequence[Clip], plan: Evaluation, settings: Settings, taxonomy: Taxonomy, judges: Sequence[Judge],
    reward: CompositeReward | None, context: Context,
) -> dict[str, Any]:  # fmt: skip
    """Merge the answers in `folder` (IncompletePredictions if some are missing), then `assess` them."""
    found = merged(folder, plan.keys(clips))
    return assess(folder, found, plan, settings, taxonomy, judges, reward, context, clips)


def assess(
    folder: Path, predictions: Sequence[Prediction], plan: Evaluation, settings: Settings, taxonomy: Taxonomy,
    judges: Sequence[Judge], reward: CompositeReward | None, context: Context, clips: Sequence[Clip],
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
