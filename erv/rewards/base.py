"""What a reward is, and what it sees of a completion.

A reward of one's own is a class with a `weight` and a `__call__`, and one line of config (docs/extending.md):

    python -m erv.train +exp=grpo_dfew … +reward.terms.brevity._target_=my_lab.Brevity
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from erv.rationale import Rationale
from erv.types import Clip, Sentence


@dataclass(frozen=True, slots=True)
class Completion:
    """One sampled answer of the policy, parsed, with what the verifier reads in it."""

    text: str
    """The completion as it was decoded."""
    rationale: Rationale
    """The text inside <think> and <answer>, and whether its form is right."""
    gold: str
    """The clip's label, as the data set spells it."""
    correct: bool | None
    """Whether the answer names the gold label; None when the gold label is not one of the taxonomy."""
    emotion: str | None
    """The gold label among the verifier's labels, which may differ from the data set's; None when it is unknown."""
    neutral: str
    """The verifier's label for no emotion."""
    sentences: tuple[Sentence, ...] | None
    """The sentences of the rationale with the emotions that the verifier finds; None when the verifier failed."""
    clip: Clip | None = None
    """The clip that the completion is about, where the caller knows it."""
    tokens: int | None = None
    """The length of the completion, where the caller knows it."""


class Reward(Protocol):
    """One term of the total reward."""

    @property
    def weight(self) -> float:
        """The factor of this term in the total."""

    def __call__(self, completions: Sequence[Completion]) -> list[float | None]:
        """The unweighted reward of each completion; None where it cannot be computed, which then counts as absent, not as 0."""
