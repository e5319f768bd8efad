"""Evaluation: sample answers, read them, judge them. The only place where a judge is asked."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from tqdm import tqdm

from erv.emotions import Taxonomy
from erv.grpo.rollout import Rollout, rollout
from erv.grpo.sampling import Sampling
from erv.judges.base import Judge
from erv.lit.samples import Sample
from erv.policy import Policy
from erv.rationale import parse
from erv.records import Decoding, Prediction, Split
from erv.rewards.explanation import ExplanationReward
from erv.rewards.total import TotalReward


@dataclass(frozen=True)
class Evaluation:
    """What is measured: `samples` answers per clip at `temperature`, and one greedy answer when `greedy`.

    `limit` keeps the first clips of the split; None keeps all.
    """

    split: Split = "test"
    samples: int = 2
    temperature: float = 0.7
    top_p: float = 1.0
    greedy: bool = True
    max_new_tokens: int = 512
    batch_size: int = 64
    limit: int | None = None


def prompt_seed(*parts: object) -> int:
    """A seed for one prompt from the run's seed, the iteration and the clip: nothing else may change what it gets."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generate(
    policy: Policy, batch: Sequence[Sample], modalities: Sequence[str], group_size: int, max_new_tokens: int,
    sampling: Sampling, seeds: Sequence[int] | None,
) -> Rollout:  # fmt: skip
    """`group_size` answers per clip; the one way answers are generated, in training and in evaluation."""
    model, processor = policy.model, policy.processor
    rows = [features for _, features in batch]
    collated = processor.collate([processor.prompt_of(row, modalities) for row in rows], rows).to(model.device)
    training = model.training
    model.eval()
    with torch.no_grad():
        embeds, mask, _ = model.embed(collated)
        result = rollout(
            model.language_model, embeds, mask, group_size, max_new_tokens, processor.eos_ids, processor.pad_id, sampling,
            seeds,
        )  # fmt: skip
    model.train(training)
    return result


def predict(
    policy: Policy, samples: Sequence[Sample], modalities: Sequence[str], plan: Evaluation, decoding: Decoding,
    taxonomy: Taxonomy, seed: int, progress: bool = True,
) -> list[Prediction]:  # fmt: skip
    """The policy's answers to `samples`, unread and unjudged."""
    count = plan.samples if decoding == "sampled" else 1
    found: list[Prediction] = []
    starts = range(0, len(samples), plan.batch_size)
    for start in tqdm(starts, desc=f"answers ({decoding})", unit="batch", disable=not progress):
        batch = samples[start : start + plan.batch_size]
        seeds = [prompt_seed(seed, "evaluation", clip.id) for clip, _ in batch] if decoding == "sampled" else None
        sampling = Sampling(plan.temperature, plan.top_p) if decoding == "sampled" else Sampling()
        done = generate(policy, batch, modalities, count, plan.max_new_tokens, sampling, seeds)
        for row, (tokens, mask, finished) in enumerate(zip(done.tokens, done.mask, done.finished, strict=True)):
            text = policy.processor.decode(tokens[mask.bool()].tolist())
            clip, rationale = batch[row // count][0], parse(text)
            found.append(Prediction(
                clip_id=clip.id, gold=clip.label, text=text, decoding=decoding, sample=row % count,
                answer=taxonomy.normalise(rationale.answer), think=rationale.think, well_formed=rationale.well_formed,
                tokens=int(mask.sum()), finished=bool(finished),
            ))  # fmt: skip
    return found


def read(predictions: Sequence[Prediction], reward: TotalReward) -> list[Prediction]:
    """The predictions with their rewards, and their sentences with the verifier's emotions."""
    parts = reward([p.text for p in predictions], [p.gold for p in predictions])
    sentences = reward.read([p.think or "" for p in predictions])
    rows = zip(predictions, parts, sentences, strict=True)
    return [replace(p, rewards={**r.parts, "total": r.total}, sentences=s or ()) for p, r, s in rows]


def reward_by_judge(predictions: Sequence[Prediction], judge: Judge, reward: TotalReward) -> float | None:
    """Mean R_E with `judge` in the verifier's place, asked sentence by sentence; None unless it is free of charge.

    Where the verifier's R_E rises and this does not, the policy has learnt the verifier's mistakes.
    """
    if not judge.free or not predictions:
        return None
    part = reward.explanation or ExplanationReward()
    verdicts = iter(judge([s.text for p in predictions for s in p.sentences]))
    found = [[(next(verdicts).emotion or "",) for _ in p.sentences] for p in predictions]
    neutral = reward.taxonomy.neutral
    values = [part.value(f, p.gold, neutral) for f, p in zip(found, predictions, strict=True)]
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def judge_all(predictions: Sequence[Prediction], judge: Judge) -> list[Prediction]:
    """The predictions with the verdict of `judge` added; it sees the think text only (paper, evaluation)."""
    verdicts = judge([p.think or "" for p in predictions])
    return [replace(p, verdicts=(*p.verdicts, v)) for p, v in zip(predictions, verdicts, strict=True)]
