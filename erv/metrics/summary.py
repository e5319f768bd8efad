"""All figures of a set of predictions: what metrics.json holds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from erv.emotions import Taxonomy
from erv.metrics.intervals import interval, resampled
from erv.metrics.scores import NAMES, UNKNOWN, confusion, indices, recalls, scores
from erv.records import Prediction, Verdict


def verdict_of(prediction: Prediction, judge: str) -> Verdict:
    """The verdict of `judge`; ValueError when it has not judged this prediction."""
    for verdict in prediction.verdicts:
        if verdict.judge == judge:
            return verdict
    raise ValueError(f"clip {prediction.clip_id} has no verdict of judge {judge!r}; judge all predictions first")


def summarise(
    predictions: Sequence[Prediction], taxonomy: Taxonomy, judge: str | None, resamples: int = 2000, seed: int = 0
) -> dict[str, Any]:
    """Figures as fractions, 95 % bootstrap intervals over clips, per-class figures and rationale statistics.

    Without a judge, what needs one is None.
    """
    if not predictions:
        raise ValueError("there are no predictions to summarise")
    labels = taxonomy.labels
    verdicts = [verdict_of(p, judge) for p in predictions] if judge is not None else []
    gold = indices([p.gold for p in predictions], labels)
    answer = indices([p.answer for p in predictions], labels)
    judged = indices([v.emotion for v in verdicts], labels) if judge is not None else np.full_like(gold, UNKNOWN)
    _, clip = np.unique([p.clip_id for p in predictions], return_inverse=True)
    draws = resampled(gold, answer, judged, clip, len(labels), resamples, seed)
    unread = () if judge is not None else ("eea", "epc", "fcr", "right_answer_wrong_reason")
    return {
        **scores(gold, answer, judged, len(labels)),
        **dict.fromkeys(unread),
        "intervals": {name: None if name in unread else interval(draws[name]) for name in NAMES},
        "per_class": _per_class(gold, answer, judged, labels),
        "confusion": confusion(gold, answer, len(labels)).tolist(),
        "format_rate": float(np.mean([p.well_formed for p in predictions])),
        "finished_rate": float(np.mean([p.finished for p in predictions])),
        "verdict_status": _shares([v.status for v in verdicts]),
        **_style(predictions, taxonomy),
    }


def _per_class(
    gold: np.ndarray, answer: np.ndarray, judged: np.ndarray, labels: Sequence[str]
) -> dict[str, dict[str, float]]:
    recall, eea = (
        recalls(gold, answer, len(labels)),
        recalls(gold, np.where(judged == UNKNOWN, -1, judged), len(labels)),
    )
    count = np.bincount(gold, minlength=len(labels))
    return {
        label: {"recall": float(recall[i]), "eea": float(eea[i]), "count": int(count[i])}
        for i, label in enumerate(labels)
    }


def _style(predictions: Sequence[Prediction], taxonomy: Taxonomy) -> dict[str, float | None]:
    """How rationales are written: the signs of a collapse are short, few, alike or all neutral."""
    sentences = [s for p in predictions for s in p.sentences]
    known = [s for s in sentences if s.emotions]
    rewards = [p.rewards["explanation"] for p in predictions if p.rewards.get("explanation") is not None]
    thinks = [p.think for p in predictions]
    return {
        "sentences_mean": len(sentences) / len(predictions),
        "neutral_share": sum(s.emotions == (taxonomy.neutral,) for s in known) / len(known) if known else None,
        "tokens_mean": float(np.mean([p.tokens for p in predictions])),
        "distinct_rationales": len(set(thinks)) / len(thinks),
        "verifier_reward": float(np.mean(np.array(rewards, dtype=np.float64))) if rewards else None,
    }


def _shares(values: Sequence[str]) -> dict[str, float]:
    return {value: count / len(values) for value, count in Counter(values).items()}
