"""The dev curve of a policy in training: it is logged and steers nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack

import lightning.pytorch as pl
import torch
from torch import Tensor
from torchmetrics import Metric

from erv.data.clip_reader import Sample
from erv.distributed.sharding import sharding_of
from erv.evaluation.annotate import judge_rewards, judged, read
from erv.evaluation.generate import answers
from erv.evaluation.judges.base import Judge
from erv.evaluation.metrics.running import RunningFigures
from erv.evaluation.settings import Evaluation
from erv.policy.policy import Policy
from erv.rewards.composite import TotalReward
from erv.taxonomy import Taxonomy
from erv.training.stage import Stage

SHOWN = ("war", "uar", "eea", "epc", "fcr", "verifier_reward", "judge_reward", "neutral_share", "format_rate")


class DevCurve(Stage):
    """Validation that samples one answer per dev clip at `dev_temperature`, and logs its figures.

    The verifier's R_E stands beside the judge's: where they part, the policy has learnt the verifier's mistakes.
    """

    policy: Policy
    reward: TotalReward
    taxonomy: Taxonomy
    modalities: Sequence[str]
    seed: int
    judge: Judge | None
    dev_temperature: float
    max_new_tokens: int
    batch_size: int
    figures: RunningFigures

    def on_validation_epoch_start(self) -> None:
        """Count from nothing."""
        self.figures = RunningFigures(self.taxonomy, self.judge.name if self.judge else None).to(self.device)

    def validation_step(self, batch: list[Sample], _: int) -> None:
        """One sampled answer per dev clip, with rewards and verdicts."""
        plan = Evaluation(
            "dev", 1, self.dev_temperature, max_new_tokens=self.max_new_tokens, batch_size=self.batch_size
        )
        for found in answers(self.policy, batch, self.modalities, plan, "sampled", self.taxonomy, self.seed):
            rows = read(found, self.reward)
            rows = judged(rows, [self.judge], progress=False) if self.judge else rows
            self.figures.update(rows, judge_rewards(rows, self.judge, self.reward))

    def on_validation_epoch_end(self) -> None:
        """Log the figures of this round, over all processes."""
        found = self.figures.compute()
        shown = "war" if self.judge is None else "fcr"
        for name in SHOWN:
            if name in found:
                self.log(f"dev/{name}", found[name], prog_bar=name == shown)


class WholeForValidation(pl.Callback):
    """Has weights that processes share out together while a validation runs: they differ in their dev clips."""

    def __init__(self) -> None:
        self.held = ExitStack()

    def on_validation_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Gather once."""
        trained = [model for model in module.children() if any(p.requires_grad for p in model.parameters())]
        self.held.enter_context(sharding_of(trainer).whole_weights(trained))

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Share out again."""
        self.held.close()


class Means(Metric):
    """The weighted means of several values over batches and processes; a process without a batch does no harm."""

    full_state_update = False
    sums: Tensor
    weights: Tensor

    def __init__(self, *names: str) -> None:
        super().__init__()
        self.names = names
        self.add_state("sums", torch.zeros(len(names)), dist_reduce_fx="sum")
        self.add_state("weights", torch.zeros(()), dist_reduce_fx="sum")

    def update(self, values: Mapping[str, Tensor], weight: float) -> None:
        """Add a batch: the mean of each value over it, and how much it counts."""
        self.sums = self.sums + torch.stack([values[name].detach().float() for name in self.names]) * weight
        self.weights = self.weights + weight

    def compute(self) -> dict[str, Tensor]:
        """The means by name."""
        return dict(zip(self.names, (self.sums / self.weights).unbind(), strict=True))
