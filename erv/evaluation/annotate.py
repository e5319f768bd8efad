"""Add to predictions what the verifier and the judges read in their explanations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from erv import rationale
from erv.evaluation.judges.base import Judge, ask
from erv.types import Prediction, Sentence, Verdict

if TYPE_CHECKING:
    from erv.rewards.composite import CompositeReward


def read(predictions: Sequence[Prediction], reward: CompositeReward) -> list[Prediction]:
    """The predictions with their rewards, and their sentences with the verifier's emotions.

    Rewards compare with the gold label: without one there are none.
    """
    sentences = reward.read([p.think or "" for p in predictions])
    known = [i for i, p in enumerate(predictions) if p.gold]
    found = reward([predictions[i].text for i in known], [predictions[i].gold for i in known])
    parts = dict(zip(known, found, strict=True))
    return [
        replace(p, sentences=s or (), rewards={**parts[i].parts, "total": parts[i].total} if i in parts else {})
        for i, (p, s) in enumerate(zip(predictions, sentences, strict=True))
    ]


def split(predictions: Sequence[Prediction], language: str = "en") -> list[Prediction]:
    """The predictions with their sentences, where nobody has taken them apart; no verifier reads them."""
    return [
        p if p.sentences or not p.think
        else replace(p, sentences=tuple(Sentence(s, ()) for s in rationale.sentences(p.think, language)))
        for p in predictions
    ]  # fmt: skip


def judged(predictions: Sequence[Prediction], judges: Sequence[Judge], progress: bool = True) -> list[Prediction]:
    """The predictions with a verdict of every judge, which sees the think text only (paper, evaluation).

    Verdicts of other judges stay. Raises CircuitOpen when an endpoint does not work.
    """
    from tqdm import tqdm

    texts = [p.think or "" for p in predictions]
    todo = {judge.name: judge.waiting(texts) for judge in judges}
    bars = {n: tqdm(total=c, desc=f"judge {n}", unit="text") for n, c in todo.items() if c and progress}
    try:
        found = ask(judges, texts, lambda name: _advance(bars.get(name)))
    finally:
        for bar in bars.values():
            bar.close()
    rows = []
    for i, p in enumerate(predictions):
        new = [v for name in found if (v := found[name][i]) is not None]
        rows.append(replace(p, verdicts=(*(v for v in p.verdicts if v.judge not in found), *new)))
    return rows


def _advance(bar: Any) -> None:
    if bar is not None:
        bar.update()


def judge_rewards(
    predictions: Sequence[Prediction], judge: Judge | None, reward: CompositeReward | None
) -> list[float]:
    """R_E of each answer with `judge` in the verifier's place, asked sentence by sentence; empty unless it is free of charge.

    Where the verifier's R_E rises and this does not, the policy has learnt the verifier's mistakes.
    """
    if judge is None or not judge.free or reward is None:
        return []
    from erv.rewards.explanation import ExplanationReward

    part = reward.explanation or ExplanationReward()
    verdicts = iter(ask([judge], [s.text for p in predictions for s in p.sentences])[judge.name])
    found = [[(_emotion(next(verdicts)),) for _ in p.sentences] for p in predictions]
    neutral = reward.taxonomy.neutral
    values = [part.value(f, p.gold, neutral) for f, p in zip(found, predictions, strict=True)]
    return [value for value in values if value is not None]


def _emotion(verdict: Verdict | None) -> str:
    return (verdict.emotion if verdict else None) or ""
