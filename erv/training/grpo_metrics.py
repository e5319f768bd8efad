"""What one iteration of GRPO leaves behind: figures under TRL's names, and its completions as rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from erv.data.clip_reader import Sample
from erv.distributed.collectives import all_gather_object
from erv.engine.generate import Rollout, replaced
from erv.grpo.advantages import Advantages, reward_metrics
from erv.grpo.loss import Metrics
from erv.types import Clip, RewardParts


@dataclass(frozen=True)
class Scored:
    """This process' answers of one iteration, N = B * G, prompt-major: tokens, texts and rewards."""

    rollout: Rollout
    texts: list[str]
    parts: list[RewardParts]
    rewards: Tensor  # [N, K], NaN where a reward could not be computed

    @classmethod
    def of(cls, rollout: Rollout, texts: list[str], parts: list[RewardParts], names: Sequence[str]) -> Scored:
        """The answers with their rewards; `names` is the order of the columns."""
        values = [[np.nan if (value := p.parts[name]) is None else value for name in names] for p in parts]
        return cls(rollout, texts, parts, torch.tensor(values, dtype=torch.float32, device=rollout.tokens.device))

    def replaced(self, new: Scored, rows: Sequence[int]) -> Scored:
        """These answers with `rows` taken from `new`, in its order."""
        texts, parts, rewards = list(self.texts), list(self.parts), self.rewards.clone()
        for row, text, part in zip(rows, new.texts, new.parts, strict=True):
            texts[row], parts[row] = text, part
        rewards[list(rows)] = new.rewards
        return Scored(replaced(self.rollout, new.rollout, rows), texts, parts, rewards)


@dataclass(frozen=True)
class Answers:
    """What is told of an iteration's answers, one entry for each: `lengths` in tokens `[N]`, `rewards` `[N, K]`."""

    clips: list[Clip]
    texts: list[str]
    parts: list[RewardParts]
    lengths: Tensor
    finished: Tensor
    rewards: Tensor

    @classmethod
    def of_all(cls, clips: Sequence[Clip], scored: Scored) -> Answers:
        """The answers of all processes, prompt-major as in one process; `clips` are those of this process' batch."""
        count, done = len(scored.texts) // len(clips), scored.rollout
        own = cls(
            [clip for clip in clips for _ in range(count)], scored.texts, scored.parts, done.mask.sum(1).cpu(),
            done.finished.cpu(), scored.rewards.cpu(),
        )  # fmt: skip
        found = all_gather_object(own)
        return cls(
            [clip for one in found for clip in one.clips], [text for one in found for text in one.texts],
            [part for one in found for part in one.parts], torch.cat([one.lengths for one in found]),
            torch.cat([one.finished for one in found]), torch.cat([one.rewards for one in found]),
        )  # fmt: skip


def completion_metrics(answers: Answers, advantage: Advantages, names: Sequence[str], neutral: str | None) -> Metrics:
    """Rewards (one name per column), lengths, and how varied and how neutral the answers are."""
    lengths, finished = answers.lengths.float(), answers.finished
    metrics = reward_metrics(answers.rewards, names, advantage)
    metrics |= {
        "completions/mean_length": lengths.mean(),
        "completions/min_length": lengths.min(),
        "completions/max_length": lengths.max(),
        "completions/clipped_ratio": 1 - finished.float().mean(),
        "completions/distinct": torch.tensor(len(set(answers.texts)) / len(answers.texts)),
    }
    if bool(finished.any()):
        metrics["completions/mean_terminated_length"] = lengths[finished].mean()
    sentences = [s for p in answers.parts for s in p.sentences]
    if sentences:
        share = sum(s.emotions == (neutral,) for s in sentences) / len(sentences)
        metrics["completions/neutral_share"] = torch.tensor(share)
    return metrics


def completion_rows(iteration: int, answers: Answers, advantage: Advantages) -> list[dict[str, Any]]:
    """One row per answer for completions.parquet.

    `sentences` has a line for each, with what the verifier finds in it: `Her brows draw together. [angry, disgust]`.
    """
    return [
        {"iter": iteration, "clip_id": clip.id, "gold": clip.label, "text": text, "tokens": length, "advantage": value,
         "reward": part.total, **{f"reward_{name}": reward for name, reward in part.parts.items()},
         "sentences": "\n".join(f"{s.text} [{', '.join(s.emotions)}]" for s in part.sentences)}
        for clip, text, length, value, part in zip(
            answers.clips, answers.texts, answers.lengths.tolist(), advantage.values.tolist(), answers.parts, strict=True
        )
    ]  # fmt: skip


def broken_batch(batch: list[Sample], scored: Scored, advantage: Advantages) -> dict[str, Any]:
    """A batch whose step is not finite, for a look."""
    rollout = scored.rollout
    return {
        "clips": [clip.id for clip, _ in batch], "texts": scored.texts, "tokens": rollout.tokens, "mask": rollout.mask,
        "logps": rollout.logps, "rewards": scored.rewards, "advantages": advantage.values,
    }  # fmt: skip
