"""Add to predictions what the verifier and the judges read in their explanations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING

from erv import rationale
from erv.evaluation.judges.base import Judge, ask_judges
from erv.types import Prediction, Sentence

if TYPE_CHECKING:
    from erv.rewards.composite import CompositeReward


def add_rewards(predictions: Sequence[Prediction], reward: CompositeReward) -> list[Prediction]:
    """Add the rewards of each prediction, and its sentences with the verifier's emotions.

    Rewards compare with the gold label: a prediction without one gets none.
    """
    sentences = reward.read([p.think or "" for p in predictions])
    with_gold = [i for i, p in enumerate(predictions) if p.gold]
    parts = reward(
        [predictions[i].text for i in with_gold],
        [predictions[i].gold for i in with_gold],
        tokens=[predictions[i].tokens or None for i in with_gold],
    )
    rewards = {i: {**part.parts, "total": part.total} for i, part in zip(with_gold, parts, strict=True)}
    return [
        replace(p, sentences=s or (), rewards=rewards.get(i, {}))
        for i, (p, s) in enumerate(zip(predictions, sentences, strict=True))
    ]


def add_sentences(predictions: Sequence[Prediction], language: str = "en") -> list[Prediction]:
    """Split the rationales that have no sentences yet, where no verifier does it."""
    return [
        p
        if p.sentences or not p.think
        else replace(p, sentences=tuple(Sentence(s, ()) for s in rationale.sentences(p.think, language)))
        for p in predictions
    ]


def add_verdicts(
    predictions: Sequence[Prediction],
    judges: Sequence[Judge],
    progress: bool = True,
) -> list[Prediction]:
    """Add a verdict of every judge, which sees the think text only (paper, evaluation).

    Verdicts of other judges stay. Raises CircuitOpen when an endpoint does not work.
    """
    from tqdm import tqdm

    texts = [p.think or "" for p in predictions]
    pending = {judge.name: judge.pending(texts) for judge in judges}
    bars = {n: tqdm(total=count, desc=f"judge {n}", unit="text") for n, count in pending.items() if count and progress}

    def advance(name: str) -> None:
        if name in bars:
            bars[name].update()

    try:
        verdicts = ask_judges(judges, texts, advance)
    finally:
        for bar in bars.values():
            bar.close()
    result = []
    for i, p in enumerate(predictions):
        of_others = [verdict for verdict in p.verdicts if verdict.judge not in verdicts]
        new = [verdict for of_judge in verdicts.values() if (verdict := of_judge[i]) is not None]
        result.append(replace(p, verdicts=(*of_others, *new)))
    return result


def judge_rewards(
    predictions: Sequence[Prediction], judge: Judge | None, reward: CompositeReward | None
) -> list[float]:
    """Compute R_E with `judge` in place of the verifier, asked sentence by sentence; empty unless that is free of charge.

    Where the verifier's R_E rises and this does not, the policy has learnt the verifier's mistakes.
    """
    if judge is None or not judge.free or reward is None:
        return []
    from erv.rewards.explanation import ExplanationReward

    explanation = reward.explanation or ExplanationReward()
    verdicts = iter(ask_judges([judge], [s.text for p in predictions for s in p.sentences])[judge.name])
    rewards = []
    for p in predictions:
        of_sentences = islice(verdicts, len(p.sentences))
        emotions = [((verdict.emotion if verdict else None) or "",) for verdict in of_sentences]
        rewards.append(explanation.value(emotions, p.gold, reward.taxonomy.neutral))
    return [value for value in rewards if value is not None]
