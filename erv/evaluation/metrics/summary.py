"""All metrics of a set of predictions: what metrics.json holds for one way of decoding."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any, Literal

import numpy as np

from erv.evaluation.metrics.agreement import cohen_kappa, krippendorff_alpha, percent_agreement
from erv.evaluation.metrics.answer_table import (
    UNKNOWN,
    AnswerTable,
    RecallClasses,
    class_recalls,
    confusion,
    label_indices,
    quadrants,
    recall_parts,
)
from erv.evaluation.metrics.bootstrap import bootstrap_scores, interval
from erv.evaluation.metrics.definitions import answer_metrics
from erv.evaluation.metrics.legacy import legacy_confusion, legacy_table
from erv.evaluation.metrics.scores import scores, text_scores
from erv.evaluation.metrics.text_stats import Answers
from erv.rationale import parse
from erv.rewards.legacy import label, one_line, rule
from erv.taxonomy import Taxonomy
from erv.types import Prediction, Verdict

Unknown = Literal["wrong", "legacy_erv", "legacy_humanomni"]
_RECALL_OVER: dict[Unknown, RecallClasses] = {
    "wrong": "labels",
    "legacy_erv": "labels_without_unknown",
    "legacy_humanomni": "union",
}


@dataclass(frozen=True)
class MetricSettings:
    """How metrics are computed.

    `unknown`: an answer off the list is "wrong" and stays in every denominator; "legacy_erv" counts as the released code
    does (on MAFW such answers leave UAR's denominators; an explanation counts only where answer and verdict can both be
    parsed), "legacy_humanomni" as HumanOmni's (UAR over the union of gold labels and answers). `answers`: how they are parsed,
    by our own rules or by those of the "released" code; "legacy_erv" always uses the latter. Intervals are percentiles of
    `resamples` bootstrap draws of the clips, within the gold classes if `stratified`.
    """

    unknown: Unknown = "wrong"
    answers: Literal["erv", "released"] = "erv"
    resamples: int = 2000
    stratified: bool = True

    def __post_init__(self) -> None:
        for key, value, allowed in (
            ("unknown", self.unknown, tuple(_RECALL_OVER)),
            ("answers", self.answers, ("erv", "released")),
        ):
            if value not in allowed:
                raise ValueError(f"metrics.{key} is one of {', '.join(allowed)}, got {value!r}")
        if self.resamples < 1:
            raise ValueError(f"metrics.resamples is at least 1, got {self.resamples}")

    def require(self, taxonomy: Taxonomy) -> None:
        """Raise ValueError where the released rules do not cover the labels."""
        if self.unknown == "legacy_erv" or self.answers == "released":
            rule(taxonomy)


DEFAULT = MetricSettings()


def verdict_of(prediction: Prediction, judge: str) -> Verdict:
    """The verdict of `judge`; ValueError when it has not judged this prediction."""
    for verdict in prediction.verdicts:
        if verdict.judge == judge:
            return verdict
    raise ValueError(f"clip {prediction.clip_id} has no verdict of judge {judge!r}; judge all predictions first")


def has_verdict(prediction: Prediction, judge: str | None) -> bool:
    """Whether `judge` was shown this prediction: people are shown some only."""
    return any(verdict.judge == judge for verdict in prediction.verdicts)


def table_of(
    predictions: Sequence[Prediction],
    taxonomy: Taxonomy,
    judge: str | None = None,
    settings: MetricSettings = DEFAULT,
) -> AnswerTable:
    """The predictions as a table of class indices; without a judge every verdict is unknown."""
    verdicts = [verdict_of(p, judge).emotion for p in predictions] if judge is not None else None
    clips = [p.clip_id for p in predictions]
    if settings.unknown == "legacy_erv":
        lines = [one_line(str(number), p.text) for number, p in enumerate(predictions)]
        gold_labels = {line.id: p.gold for line, p in zip(lines, predictions, strict=True)}
        replies = {line.id: emotion for line, emotion in zip(lines, verdicts or [None] * len(lines), strict=True)}
        return legacy_table(lines, gold_labels, replies, taxonomy, clips)
    return AnswerTable.of(
        label_indices([p.gold for p in predictions], taxonomy.labels).tolist(),
        _answer_indices(predictions, taxonomy, settings),
        None if verdicts is None else label_indices(verdicts, taxonomy.labels).tolist(),
        len(taxonomy.labels),
        clips,
        recall_over=_RECALL_OVER[settings.unknown],
    )


def _answer_indices(predictions: Sequence[Prediction], taxonomy: Taxonomy, settings: MetricSettings) -> list[int]:
    """Class index of each answer; for HumanOmni's counting every different answer off the list has a number of its own."""
    released = settings.answers == "released"
    lines = [one_line(p.clip_id, p.text) for p in predictions] if released else []
    answers = (
        [label(line.answer(taxonomy), taxonomy) for line in lines] if released else [p.answer for p in predictions]
    )
    indices: list[int] = label_indices(answers, taxonomy.labels).tolist()
    if settings.unknown != "legacy_humanomni":
        return indices
    extra_classes: dict[str, int] = {}
    for i, p in enumerate(predictions):
        if indices[i] == UNKNOWN:
            text = lines[i].answer(taxonomy) if released else parse(p.text).answer or p.text
            indices[i] = len(taxonomy.labels) + extra_classes.setdefault(text.strip(), len(extra_classes))
    return indices


def summarise(
    predictions: Sequence[Prediction],
    taxonomy: Taxonomy,
    judge: str | None,
    *,
    settings: MetricSettings = DEFAULT,
    judges: Sequence[str] = (),
    taught: Collection[str] = (),
    judge_rewards: Sequence[float] = (),
    seed: int = 0,
) -> dict[str, Any]:
    """Compute every metric as a fraction, with 95 % bootstrap intervals over clips, per-class metrics and text statistics.

    Args:
        judge: the one whose metrics stand at the top level; None: what needs a judge is None.
        judges: those under "judges", with their agreement; default: `judge` alone.
        taught: the sentences of the SFT data, for copy_rate.
        judge_rewards: R_E of completions with the judge in place of the verifier.
        seed: of the bootstrap.
    """
    if not predictions:
        raise ValueError("there are no predictions to summarise")
    all_judges = tuple(judges) or ((judge,) if judge is not None else ())
    if judge is not None and judge not in all_judges:
        raise ValueError(f"judge {judge!r} is none of {', '.join(all_judges)}")
    by_judge = {name: _judge_metrics(predictions, taxonomy, name, settings, seed) for name in all_judges}
    main = by_judge[judge] if judge is not None else None
    table = table_of(predictions, taxonomy, None, settings)
    values = scores(table)
    draws = bootstrap_scores(table, settings.resamples, seed, settings.stratified)
    metrics: dict[str, Any] = {}
    intervals: dict[str, list[float] | None] = {}
    for metric in answer_metrics():
        name = metric.name
        if metric.needs_judge:
            metrics[name] = main[name] if main else None
            intervals[name] = main["intervals"][name] if main else None
        else:
            metrics[name], intervals[name] = values[name], interval(draws[name])
    legacy = settings.unknown == "legacy_erv"
    counts = legacy_confusion(table) if legacy else confusion(table.gold, table.answer, table.classes)
    answers = Answers(predictions, taxonomy, taught, judge_rewards)
    return {
        **metrics,
        "intervals": intervals,
        "quadrants": main["quadrants"] if main else None,
        "per_class": _per_class(table, taxonomy, main),
        "confusion": counts.tolist(),
        **text_scores(answers, "format"),
        "verdict_status": main["verdict_status"] if main else {},
        "judges": by_judge,
        "agreement": agreement(predictions, taxonomy, all_judges, settings.resamples, seed),
        **text_scores(answers, "rationales"),
    }


def _judge_metrics(
    predictions: Sequence[Prediction],
    taxonomy: Taxonomy,
    judge: str,
    settings: MetricSettings,
    seed: int,
) -> dict[str, Any]:
    """The metrics that need a judge, over the answers that this one was shown."""
    shown = [p for p in predictions if has_verdict(p, judge)]
    if not shown:
        raise ValueError(f"no prediction has a verdict of judge {judge!r}; judge them first")
    table = table_of(shown, taxonomy, judge, settings)
    draws = bootstrap_scores(table, settings.resamples, seed, settings.stratified)
    values = scores(table)
    names = [metric.name for metric in answer_metrics() if metric.needs_judge]
    eea = class_recalls(table.gold, table.judged, table.classes)
    statuses = Counter(verdict_of(p, judge).status for p in shown)
    return {
        "answers": len(shown),
        **{name: values[name] for name in names},
        "intervals": {name: interval(draws[name]) for name in names},
        "quadrants": quadrants(table),
        "verdict_status": {status: count / len(shown) for status, count in statuses.items()},
        "per_class": {name: float(eea[i]) for i, name in enumerate(taxonomy.labels)},
        "confusion": confusion(table.gold, table.judged, table.classes).tolist(),
    }


def _per_class(
    table: AnswerTable,
    taxonomy: Taxonomy,
    judge_metrics: Mapping[str, Any] | None,
) -> dict[str, dict[str, float | None]]:
    right, counted, _ = (part.sum(0) for part in recall_parts(table))
    count = np.bincount(table.gold, minlength=table.classes)
    return {
        name: {
            "recall": float(right[i] / max(counted[i], 1)),
            "eea": judge_metrics["per_class"][name] if judge_metrics else None,
            "count": int(count[i]),
        }
        for i, name in enumerate(taxonomy.labels)
    }


def agreement(
    predictions: Sequence[Prediction],
    taxonomy: Taxonomy,
    judges: Sequence[str],
    resamples: int = 2000,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Percent agreement, kappa and alpha of every pair of judges, and with three or more Krippendorff's alpha of them all."""
    ratings = {name: _ratings(predictions, taxonomy, name) for name in judges}
    rows: list[dict[str, Any]] = []
    for first, second in combinations(judges, 2):
        a, b = ratings[first], ratings[second]
        rows.append(
            {
                "judges": [first, second],
                "percent": asdict(percent_agreement(a, b)),
                "kappa": asdict(cohen_kappa(a, b, resamples, seed)),
                "alpha": asdict(krippendorff_alpha(np.stack([a, b]), resamples, seed)),
            }
        )
    if len(judges) > 2:
        alpha = krippendorff_alpha(np.stack(list(ratings.values())), resamples, seed)
        rows.append({"judges": list(judges), "alpha": asdict(alpha)})
    return rows


def _ratings(predictions: Sequence[Prediction], taxonomy: Taxonomy, judge: str) -> np.ndarray:
    """The judge's labels as indices `[N]`, UNKNOWN where it gave none or was not asked."""
    emotions = [next((v.emotion for v in p.verdicts if v.judge == judge), None) for p in predictions]
    return label_indices(emotions, taxonomy.labels)
