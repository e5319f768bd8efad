"""What one iteration of GRPO leaves behind: figures under TRL's names, and its completions as rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from erv.grpo.advantages import Advantages, reward_metrics
from erv.grpo.groups import replaced
from erv.grpo.objective import Metrics
from erv.grpo.rollout import Rollout
from erv.records import Clip, RewardParts


@dataclass(frozen=True)
class Scored:
    """The answers of one iteration, N = B * G, prompt-major: tokens, texts and rewards."""

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


def completion_metrics(scored: Scored, advantage: Advantages, names: Sequence[str], neutral: str | None) -> Metrics:
    """Rewards (one name per column), lengths, and how varied and how neutral the answers are."""
    lengths, finished = scored.rollout.mask.sum(1).float(), scored.rollout.finished
    metrics = reward_metrics(scored.rewards, names, advantage)
    metrics |= {
        "completions/mean_length": lengths.mean(),
        "completions/min_length": lengths.min(),
        "completions/max_length": lengths.max(),
        "completions/clipped_ratio": 1 - finished.float().mean(),
        "completions/distinct": torch.tensor(len(set(scored.texts)) / len(scored.texts)),
    }
    if bool(finished.any()):
        metrics["completions/mean_terminated_length"] = lengths[finished].mean()
    sentences = [s for p in scored.parts for s in p.sentences]
    if sentences:
        share = sum(s.emotions == (neutral,) for s in sentences) / len(sentences)
        metrics["completions/neutral_share"] = torch.tensor(share)
    return metrics


def completion_rows(
    iteration: int, clips: Sequence[Clip], scored: Scored, advantage: Advantages
) -> list[dict[str, Any]]:  # fmt: skip
    """One row per answer for completions.parquet; `clips` holds one clip per answer.

    `sentences` has a line for each, with what the verifier finds in it: `Her brows draw together. [angry, disgust]`.
    """
    lengths = scored.rollout.mask.sum(1).tolist()
    return [
        {"iter": iteration, "clip_id": clip.id, "gold": clip.label, "text": text, "tokens": length, "advantage": value,
         "reward": part.total, **{f"reward_{name}": reward for name, reward in part.parts.items()},
         "sentences": "\n".join(f"{s.text} [{', '.join(s.emotions)}]" for s in part.sentences)}
        for clip, text, length, value, part in zip(
            clips, scored.texts, lengths, advantage.values.tolist(), scored.parts, strict=True
        )
    ]  # fmt: skip
