"""The reward for other trainers: TRL's `reward_funcs` and verl's `compute_score`, over one and the same CompositeReward."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from erv.rewards.composite import CompositeReward

Message = dict[str, Any]


class TRLReward:
    """A reward function of TRL's trainers: `GRPOTrainer(reward_funcs=[TRLReward(reward)], …)`.

    Completions are texts or conversations, of which the last message counts. `column` names the data set's column with the
    gold labels, as label or as solution with answer tags. `part` gives one of the rewards alone ("format", "answer",
    "explanation"), unweighted, so that TRL logs and weights it by itself; by default their weighted sum. A reward that could
    not be computed is None, which TRL leaves out.
    """

    def __init__(self, reward: CompositeReward, column: str = "solution", part: str | None = None) -> None:
        if part is not None and part not in reward.weights:
            raise ValueError(f"part is one of {', '.join(reward.weights)}, got {part!r}")
        self.reward, self.column, self.part = reward, column, part
        self.__name__ = f"erv_{part or 'total'}"  # what TRL logs it under

    def __call__(
        self, prompts: Sequence[Any] | None = None, completions: Sequence[str | list[Message]] = (), **columns: Any
    ) -> list[float | None]:  # fmt: skip
        """The rewards of `completions`; the other columns of the batch come by name."""
        if self.column not in columns:
            raise ValueError(
                f"the data set has no column {self.column!r} with the gold labels (it has {', '.join(sorted(columns))}); add it, "
                "or set column="
            )
        texts = [c if isinstance(c, str) else str(c[-1]["content"]) for c in completions]
        found = self.reward(texts, list(columns[self.column]))
        return [parts.total if self.part is None else parts.parts[self.part] for parts in found]


class VerlReward:
    """A reward function of verl: `compute_score(data_source, solution_str, ground_truth, extra_info)`.

    In a file of one's own, `compute_score = VerlReward(reward)`; verl is given that file and name as
    `custom_reward_function.path` and `.name`. Returns {"score": the weighted sum, and each part by name}. A part that could
    not be computed is not in the sum; it is reported as NaN, since verl wants numbers. A completion of which no part could be
    computed raises RuntimeError: verl has no way to leave one out, and 0 would punish the policy for it.
    """

    def __init__(self, reward: CompositeReward) -> None:
        self.reward = reward

    def __call__(
        self, data_source: str, solution_str: str, ground_truth: str, extra_info: Any = None, **_: Any
    ) -> dict[str, float]:  # fmt: skip
        """The score of one completion."""
        (found,) = self.reward([solution_str], [ground_truth])
        if found.total is None:
            raise RuntimeError(
                f"no reward could be computed for a completion of {data_source!r}; see the log for the reason"
            )
        parts = {name: float("nan") if value is None else value for name, value in found.parts.items()}
        return {"score": found.total, **parts}
