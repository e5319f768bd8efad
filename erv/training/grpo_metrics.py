"""What an iteration of GRPO leaves behind: metrics under TRL's names, rows of completions.parquet, non-finite batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from erv.data.clip_reader import Sample
from erv.distributed.collectives import all_gather_object
from erv.engine.generate import Rollout, replace_rows
from erv.grpo.advantages import Advantages, reward_metrics
from erv.grpo.loss import Metrics
from erv.types import Clip, RewardParts


@dataclass(frozen=True)
class Scored:
    """The completions of one process' B clips with their rewards; N = B * G, prompt-major."""

    rollout: Rollout
    """Tokens and log-probs."""

    texts: list[str]
    """N decoded completions."""

    parts: list[RewardParts]
    """N records of the unweighted rewards, with the sentences that the verifier has read."""

    rewards: Tensor
    """`[N, K]`, NaN where a reward could not be computed."""

    @classmethod
    def of(cls, rollout: Rollout, texts: list[str], parts: list[RewardParts], names: Sequence[str]) -> Scored:
        """Completions with their rewards; `names` is the order of the columns."""
        values = [[np.nan if (value := p.parts[name]) is None else value for name in names] for p in parts]
        return cls(rollout, texts, parts, torch.tensor(values, dtype=torch.float32, device=rollout.tokens.device))

    def replaced(self, new: Scored, rows: Sequence[int]) -> Scored:
        """A copy with `rows` taken from `new`, in its order."""
        texts, parts, rewards = list(self.texts), list(self.parts), self.rewards.clone()
        for row, text, part in zip(rows, new.texts, new.parts, strict=True):
            texts[row], parts[row] = text, part
        rewards[list(rows)] = new.rewards
        return Scored(replace_rows(self.rollout, new.rollout, rows), texts, parts, rewards)


@dataclass(frozen=True)
class ScoredBatch:
    """What is reported of the completions of all processes, on the CPU; N of them, prompt-major."""

    clips: list[Clip]
    """The clip of each completion."""

    texts: list[str]
    parts: list[RewardParts]

    lengths: Tensor
    """`[N]` tokens, the end token included."""

    finished: Tensor
    """`[N]` bool, an end token came."""

    rewards: Tensor
    """`[N, K]`, NaN where a reward could not be computed."""

    @classmethod
    def gather(cls, clips: Sequence[Clip], scored: Scored) -> ScoredBatch:
        """The completions of all processes in the order that one process would have; `clips` are this process' own."""
        count, rollout = len(scored.texts) // len(clips), scored.rollout
        local = cls(
            [clip for clip in clips for _ in range(count)],
            scored.texts,
            scored.parts,
            rollout.mask.sum(1).cpu(),
            rollout.finished.cpu(),
            scored.rewards.cpu(),
        )
        batches = all_gather_object(local)
        return cls(
            [clip for batch in batches for clip in batch.clips],
            [text for batch in batches for text in batch.texts],
            [part for batch in batches for part in batch.parts],
            torch.cat([batch.lengths for batch in batches]),
            torch.cat([batch.finished for batch in batches]),
            torch.cat([batch.rewards for batch in batches]),
        )


def completion_metrics(batch: ScoredBatch, advantage: Advantages, names: Sequence[str], neutral: str | None) -> Metrics:
    """Rewards (one name per column), lengths, and the variety and neutrality of the completions.

    `neutral` is the taxonomy's neutral label, if it has one.
    """
    lengths, finished = batch.lengths.float(), batch.finished
    metrics = reward_metrics(batch.rewards, names, advantage)
    metrics |= {
        "completions/mean_length": lengths.mean(),
        "completions/min_length": lengths.min(),
        "completions/max_length": lengths.max(),
        "completions/clipped_ratio": 1 - finished.float().mean(),
        "completions/distinct": torch.tensor(len(set(batch.texts)) / len(batch.texts)),
    }
    if bool(finished.any()):
        metrics["completions/mean_terminated_length"] = lengths[finished].mean()
    sentences = [sentence for part in batch.parts for sentence in part.sentences]
    if sentences:
        neutral_only = sum(sentence.emotions == (neutral,) for sentence in sentences)
        metrics["completions/neutral_share"] = torch.tensor(neutral_only / len(sentences))
    return metrics


def completion_rows(iteration: int, batch: ScoredBatch, advantage: Advantages) -> list[dict[str, Any]]:
    """One row per completion for completions.parquet.

    `sentences` has a line for each, with the emotions that the verifier reads in it: `Her brows draw together. [angry, disgust]`.
    """
    lengths, values = batch.lengths.tolist(), advantage.values.tolist()
    return [
        {
            "iter": iteration,
            "clip_id": clip.id,
            "gold": clip.label,
            "text": text,
            "tokens": length,
            "advantage": value,
            "reward": part.total,
            **{f"reward_{name}": reward for name, reward in part.parts.items()},
            "sentences": "\n".join(f"{s.text} [{', '.join(s.emotions)}]" for s in part.sentences),
        }
        for clip, text, length, value, part in zip(batch.clips, batch.texts, lengths, values, batch.parts, strict=True)
    ]


def nonfinite_batch(batch: list[Sample], scored: Scored, advantage: Advantages) -> dict[str, Any]:
    """What is saved of a batch whose step is not finite, to find out why."""
    rollout = scored.rollout
    return {
        "clips": [clip.id for clip, _ in batch],
        "texts": scored.texts,
        "tokens": rollout.tokens,
        "mask": rollout.mask,
        "logps": rollout.logps,
        "rewards": scored.rewards,
        "advantages": advantage.values,
    }
