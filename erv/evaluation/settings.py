"""Settings of an evaluation: how many answers per clip, how they are decoded, on which clips."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from erv.types import Clip, Decoding, Split

DECODINGS: tuple[Decoding, ...] = ("sampled", "greedy")
DEFAULT_MAX_NEW_TOKENS = 512
AnswerKey = tuple[str, Decoding, int]  # clip id, way of decoding, number of the sample


@dataclass(frozen=True)
class EvaluationSettings:
    """What is evaluated: `samples` answers per clip at `temperature`, and one greedy answer when `greedy`.

    `max_new_tokens` None: as in the evaluation of the policy's training, where the command knows it, else 512.
    `limit` keeps the first clips of the split; None keeps all. A run is complete when no judge failed on more than the share
    `max_failed` of its explanations: a failed verdict counts as no emotion, so this bounds the error it can cause. `on_leak`:
    what to do when the policy or the verifier was trained on clips that are evaluated.
    """

    split: Split = "test"
    samples: int = 2
    temperature: float = 0.7
    top_p: float = 1.0
    greedy: bool = True
    max_new_tokens: int | None = 512
    batch_size: int = 64
    limit: int | None = None
    max_failed: float = 0.01
    on_leak: Literal["error", "warn"] = "error"

    def __post_init__(self) -> None:
        for key, value, minimum in (
            ("samples", self.samples, 0),
            ("max_new_tokens", self.max_answer_tokens, 1),
            ("batch_size", self.batch_size, 1),
        ):
            if value < minimum:
                raise ValueError(f"evaluation.{key} is at least {minimum}, got {value}")
        if self.samples == 0 and not self.greedy:
            raise ValueError("evaluation.samples=0 needs evaluation.greedy=true, or nothing is asked")
        if not 0 <= self.max_failed <= 1:
            raise ValueError(f"evaluation.max_failed is a share in [0, 1], got {self.max_failed}")

    @property
    def max_answer_tokens(self) -> int:
        """`max_new_tokens` with its default."""
        return DEFAULT_MAX_NEW_TOKENS if self.max_new_tokens is None else self.max_new_tokens

    @property
    def decodings(self) -> dict[Decoding, int]:
        """The ways of decoding, and how many answers a clip gets in each."""
        counts: dict[Decoding, int] = {"sampled": self.samples, "greedy": int(self.greedy)}
        return {decoding: count for decoding, count in counts.items() if count}

    def answer_keys(self, clips: Sequence[Clip]) -> list[AnswerKey]:
        """Every answer to `clips`, in the order of predictions.jsonl."""
        return [(c.id, decoding, i) for decoding, count in self.decodings.items() for c in clips for i in range(count)]
