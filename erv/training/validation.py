"""The dev curve of a policy in training: it is logged and steers nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack

import lightning.pytorch as pl
import torch
from torch import Tensor
from torchmetrics import Metric

from erv.data.clip_reader import Sample
from erv.distributed import deepspeed_hooks, fsdp
from erv.evaluation.annotate import add_rewards, add_verdicts, judge_rewards
from erv.evaluation.generate import generate_predictions
from erv.evaluation.judges.base import Judge
from erv.evaluation.metrics.definitions import headline, shown_in
from erv.evaluation.metrics.running import RunningMetrics
from erv.evaluation.settings import EvaluationSettings
from erv.policy.policy import Policy
from erv.rewards.composite import CompositeReward
from erv.taxonomy import Taxonomy


class DevCurve(pl.LightningModule):
    """Validation that samples one answer per dev clip at `dev_temperature`, and logs its figures.

    The verifier's R_E stands beside the judge's: where they part, the policy has learnt the verifier's mistakes.
    """

    policy: Policy
    reward: CompositeReward
    taxonomy: Taxonomy
    modalities: Sequence[str]
    seed: int
    judge: Judge | None
    dev_temperature: float
    max_new_tokens: int
    batch_size: int
    figures: RunningMetrics

    def on_validation_epoch_start(self) -> None:
        """Count from nothing."""
        self.figures = RunningMetrics(self.taxonomy, self.judge.name if self.judge else None).to(self.device)

    def validation_step(self, batch: list[Sample], _: int) -> None:
        """One sampled answer per dev clip, with rewards and verdicts."""
        plan = EvaluationSettings(
            "dev", 1, self.dev_temperature, max_new_tokens=self.max_new_tokens, batch_size=self.batch_size
        )
        for found in generate_predictions(
            self.policy, batch, self.modalities, plan, "sampled", self.taxonomy, self.seed
        ):
            rows = add_rewards(found, self.reward)
            rows = add_verdicts(rows, [self.judge], progress=False) if self.judge else rows
            self.figures.update(rows, judge_rewards(rows, self.judge, self.reward))

    def on_validation_epoch_end(self) -> None:
        """Log the figures of this round, over all processes."""
        found = self.figures.compute()
        in_progress_bar = headline(judged=self.judge is not None)
        for metric in shown_in("validation"):
            if metric.name in found:
                self.log(f"dev/{metric.name}", found[metric.name], prog_bar=metric is in_progress_bar)


class WholeForValidation(pl.Callback):
    """Has weights that processes share out together while a validation runs: they differ in their dev clips."""

    def __init__(self) -> None:
        self.held = ExitStack()

    def on_validation_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Gather once."""
        self.held.enter_context(deepspeed_hooks.whole(module))
        for model in module.children():
            if any(p.requires_grad for p in model.parameters()):
                self.held.enter_context(fsdp.whole(model))

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
