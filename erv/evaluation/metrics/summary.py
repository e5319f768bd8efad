"""All figures of a set of predictions: what metrics.json holds for one way of decoding."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any, Literal

import numpy as np

from erv.evaluation.metrics.agreement import cohen_kappa, krippendorff_alpha, percent_agreement
from erv.evaluation.metrics.bootstrap import interval, resampled
from erv.evaluation.metrics.legacy import legacy_confusion, legacy_table
from erv.evaluation.metrics.scores import (
    JUDGED,
    NAMES,
    UNKNOWN,
    Classes,
    Table,
    confusion,
    indices,
    quadrants,
    recall_parts,
    recalls,
    scores,
)
from erv.evaluation.metrics.text_stats import style
from erv.rationale import parse
from erv.rewards.legacy import label, one_line, rule
from erv.taxonomy import Taxonomy
from erv.types import Prediction, Verdict

Unknown = Literal["wrong", "legacy_erv", "legacy_humanomni"]
_CLASSES: dict[Unknown, Classes] = {"wrong": "fixed", "legacy_erv": "known", "legacy_humanomni": "union"}


@dataclass(frozen=True)
class Settings:
    """How figures are counted.

    `unknown`: an answer off the list is "wrong" and stays in every denominator; "legacy_erv" counts as the released code
    does (on MAFW such answers leave UAR's denominators; an explanation counts only where answer and verdict can both be
    read), "legacy_humanomni" as HumanOmni's (UAR over the union of gold labels and answers). `answers`: how they are read,
    by our own rules or by those of the "released" code; "legacy_erv" always reads by the latter. Intervals are
    percentiles of `resamples` bootstrap draws of the clips, within the gold classes if `stratified`.
    """

    unknown: Unknown = "wrong"
    answers: Literal["erv", "released"] = "erv"
    resamples: int = 2000
    stratified: bool = True

    def __post_init__(self) -> None:
        for key, value, known in (
            ("unknown", self.unknown, tuple(_CLASSES)), ("answers", self.answers, ("erv", "released")),
        ):  # fmt: skip
            if value not in known:
                raise ValueError(f"metrics.{key} is one of {', '.join(known)}, got {value!r}")
        if self.resamples < 1:
            raise ValueError(f"metrics.resamples is at least 1, got {self.resamples}")

    def require(self, taxonomy: Taxonomy) -> None:
        """Raise ValueError where the released rules know nothing of the labels."""
        if self.unknown == "legacy_erv" or self.answers == "released":
            rule(taxonomy)


DEFAULT = Settings()


def verdict_of(prediction: Prediction, judge: str) -> Verdict:
    """The verdict of `judge`; ValueError when it has not judged this prediction."""
    for verdict in prediction.verdicts:
        if verdict.judge == judge:
            return verdict
    raise ValueError(f"clip {prediction.clip_id} has no verdict of judge {judge!r}; judge all predictions first")


def table_of(
    predictions: Sequence[Prediction], taxonomy: Taxonomy, judge: str | None = None, settings: Settings = DEFAULT
) -> Table:  # fmt: skip
    """The predictions as a table of class indices; without a judge every explanation is unread."""
    read = [verdict_of(p, judge).emotion for p in predictions] if judge is not None else None
    clips = [p.clip_id for p in predictions]
    if settings.unknown == "legacy_erv":
        lines = [one_line(str(number), p.text) for number, p in enumerate(predictions)]
        gold = {line.id: p.gold for line, p in zip(lines, predictions, strict=True)}
        replies = {line.id: emotion for line, emotion in zip(lines, read or [None] * len(lines), strict=True)}
        return legacy_table(lines, gold, replies, taxonomy, clips)
    judged = None if read is None else indices(read, taxonomy.labels).tolist()
    golds = indices([p.gold for p in predictions], taxonomy.labels).tolist()
    answers, size = _answers(predictions, taxonomy, settings), len(taxonomy.labels)
    return Table.of(golds, answers, judged, size, clips, uar=_CLASSES[settings.unknown])


def _answers(predictions: Sequence[Prediction], taxonomy: Taxonomy, settings: Settings) -> list[int]:
    """Class indices; for HumanOmni's counting every different answer off the list has a number of its own."""
    released = settings.answers == "released"
    lines = [one_line(p.clip_id, p.text) for p in predictions] if released else []
    named = [label(line.answer(taxonomy), taxonomy) for line in lines] if released else [p.answer for p in predictions]
    found: list[int] = indices(named, taxonomy.labels).tolist()
    if settings.unknown != "legacy_humanomni":
        return found
    others: dict[str, int] = {}
    for place, p in enumerate(predictions):
        if found[place] == UNKNOWN:
            said = lines[place].answer(taxonomy) if released else parse(p.text).answer or p.text
            found[place] = len(taxonomy.labels) + others.setdefault(said.strip(), len(others))
    return found


def summarise(
    predictions: Sequence[Prediction], taxonomy: Taxonomy, judge: str | None, resamples: int | None = None, seed: int = 0,
    settings: Settings = DEFAULT, judges: Sequence[str] = (), known: Collection[str] = (),
) -> dict[str, Any]:  # fmt: skip
    """Figures as fractions, 95 % bootstrap intervals over clips, per-class figures and rationale statistics.

    `judge` is the one whose figures stand at the top; those of all `judges` are in "judges", with their agreement. Without
    a judge, what needs one is None. `known` are the sentences that the policy was taught.
    """
    if not predictions:
        raise ValueError("there are no predictions to summarise")
    if resamples is not None:
        settings = Settings(settings.unknown, settings.answers, resamples, settings.stratified)
    every = tuple(judges) or ((judge,) if judge is not None else ())
    if judge is not None and judge not in every:
        raise ValueError(f"judge {judge!r} is none of {', '.join(every)}")
    by_judge = {name: _judged(predictions, taxonomy, name, settings, seed) for name in every}
    main = by_judge[judge] if judge is not None else None
    table = table_of(predictions, taxonomy, None, settings)
    own = {name: value for name, value in scores(table).items() if name not in JUDGED}
    draws = resampled(table, settings.resamples, seed, settings.stratified)
    spread = {name: interval(draws[name]) for name in own}
    return {
        **{name: own[name] if name in own else main[name] if main else None for name in NAMES},
        "intervals": {n: spread[n] if n in own else main["intervals"][n] if main else None for n in NAMES},
        "quadrants": main["quadrants"] if main else None,
        "per_class": _per_class(table, taxonomy, main),
        "confusion": (legacy_confusion(table) if settings.unknown == "legacy_erv" else _confusion(table)).tolist(),
        "format_rate": float(np.mean([p.well_formed for p in predictions])),
        "finished_rate": float(np.mean([p.finished for p in predictions])),
        "verdict_status": main["verdict_status"] if main else {},
        "judges": by_judge,
        "agreement": agreement(predictions, taxonomy, every, settings.resamples, seed),
        **style(predictions, taxonomy, known),
    }


def _confusion(table: Table) -> np.ndarray:
    return confusion(table.gold, table.answer, table.classes)


def _judged(
    predictions: Sequence[Prediction], taxonomy: Taxonomy, judge: str, settings: Settings, seed: int
) -> dict[str, Any]:
    """The figures of one judge, over the answers that it was shown (people are shown some only)."""
    shown = [p for p in predictions if any(v.judge == judge for v in p.verdicts)]
    if not shown:
        raise ValueError(f"no prediction has a verdict of judge {judge!r}; judge them first")
    table = table_of(shown, taxonomy, judge, settings)
    draws = resampled(table, settings.resamples, seed, settings.stratified)
    found = scores(table)
    eea = recalls(table.gold, table.judged, table.classes)
    return {
        "answers": len(shown),
        **{name: found[name] for name in JUDGED},
        "intervals": {name: interval(draws[name]) for name in JUDGED},
        "quadrants": quadrants(table),
        "verdict_status": _shares([verdict_of(p, judge).status for p in shown]),
        "per_class": {name: float(eea[i]) for i, name in enumerate(taxonomy.labels)},
        "confusion": confusion(table.gold, table.judged, table.classes).tolist(),
    }


def _per_class(
    table: Table, taxonomy: Taxonomy, judged: Mapping[str, Any] | None
) -> dict[str, dict[str, float | None]]:
    right, counted, _ = (part.sum(0) for part in recall_parts(table))
    count = np.bincount(table.gold, minlength=table.classes)
    return {
        name: {
            "recall": float(right[i] / max(counted[i], 1)),
            "eea": judged["per_class"][name] if judged else None,
            "count": int(count[i]),
        }
        for i, name in enumerate(taxonomy.labels)
    }


def agreement(
    predictions: Sequence[Prediction], taxonomy: Taxonomy, judges: Sequence[str], resamples: int = 2000, seed: int = 0
) -> list[dict[str, Any]]:  # fmt: skip
    """Percent agreement and kappa of every pair of judges, and with three or more Krippendorff's alpha of them all."""
    read = {name: _readings(predictions, taxonomy, name) for name in judges}
    rows: list[dict[str, Any]] = []
    for first, second in combinations(judges, 2):
        a, b = read[first], read[second]
        rows.append({
            "judges": [first, second], "percent": asdict(percent_agreement(a, b)),
            "kappa": asdict(cohen_kappa(a, b, resamples, seed)),
            "alpha": asdict(krippendorff_alpha(np.stack([a, b]), resamples, seed)),
        })  # fmt: skip
    if len(judges) > 2:
        every = krippendorff_alpha(np.stack(list(read.values())), resamples, seed)
        rows.append({"judges": list(judges), "alpha": asdict(every)})
    return rows


def _readings(predictions: Sequence[Prediction], taxonomy: Taxonomy, judge: str) -> np.ndarray:
    """The judge's labels as indices `[N]`, UNKNOWN where it gave none or was not asked."""
    named = [next((v.emotion for v in p.verdicts if v.judge == judge), None) for p in predictions]
    return indices(named, taxonomy.labels)


def _shares(values: Sequence[str]) -> dict[str, float]:
    return {value: count / len(values) for value, count in Counter(values).items()}
