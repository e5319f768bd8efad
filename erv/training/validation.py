"""Validation while a stage trains: figures that are logged and steer nothing."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack

import lightning.pytorch as pl
import torch
from torch import Tensor
from torchmetrics import Metric

from erv.data.clip_reader import Sample
from erv.distributed.sharding import sharding_of
from erv.evaluation.annotate import add_rewards, add_verdicts, judge_rewards
from erv.evaluation.generate import generate_predictions
from erv.evaluation.judges.base import Judge
from erv.evaluation.metrics.definitions import headline, shown_in
from erv.evaluation.metrics.running import RunningMetrics
from erv.evaluation.settings import EvaluationSettings
from erv.policy.policy import Policy
from erv.rewards.composite import CompositeReward
from erv.taxonomy import Taxonomy
from erv.training.grpo_settings import ValidationSettings


class PolicyValidation:
    """Samples one completion per dev clip, judges it, and counts the figures of the dev curve.

    The verifier's R_E stands beside the judge's: where they part, the policy has learnt the verifier's mistakes.

    Args:
        settings: how completions are sampled.
        max_new_tokens: most tokens of a completion.
        batch_size: clips that are sampled together, in each process.
        seed: a clip's completion depends on it and the clip alone.
        judge: reads the explanations; None leaves out the figures that need one.
    """

    def __init__(
        self,
        policy: Policy,
        reward: CompositeReward,
        taxonomy: Taxonomy,
        modalities: tuple[str, ...],
        settings: ValidationSettings,
        max_new_tokens: int,
        batch_size: int,
        seed: int,
        judge: Judge | None,
    ) -> None:
        self.policy, self.reward, self.taxonomy, self.modalities = policy, reward, taxonomy, modalities
        self.settings, self.max_new_tokens, self.batch_size = settings, max_new_tokens, batch_size
        self.seed, self.judge = seed, judge
        self.headline = headline(judged=judge is not None).name
        self.metric: RunningMetrics | None = None

    def start(self, device: torch.device) -> None:
        """Begin a round of validation; `device` is one that the processes' counts can be sent from."""
        self.metric = RunningMetrics(self.taxonomy, self.judge.name if self.judge else None).to(device)

    def add(self, batch: list[Sample]) -> None:
        """Sample, score and judge one completion per clip."""
        if self.metric is None:
            raise RuntimeError("start() comes first")
        plan = EvaluationSettings(
            "dev",
            samples=1,
            temperature=self.settings.temperature,
            max_new_tokens=self.max_new_tokens,
            batch_size=self.batch_size,
        )
        for predictions in generate_predictions(
            self.policy, batch, self.modalities, plan, "sampled", self.taxonomy, self.seed
        ):
            rows = add_rewards(predictions, self.reward)
            rows = add_verdicts(rows, [self.judge], progress=False) if self.judge else rows
            self.metric.update(rows, judge_rewards(rows, self.judge, self.reward))

    def figures(self) -> dict[str, float]:
        """The figures of this round over all processes."""
        if self.metric is None:
            raise RuntimeError("start() comes first")
        figures = self.metric.compute()
        return {m.name: figures[m.name] for m in shown_in("validation") if m.name in figures}


class WholeWeightsInValidation(pl.Callback):
    """Gathers sharded weights for the time of a validation, in which processes run different numbers of passes."""

    def __init__(self) -> None:
        self.gathered = ExitStack()

    def on_validation_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Gather the weights of everything that is trained."""
        trained = [model for model in module.children() if any(p.requires_grad for p in model.parameters())]
        self.gathered.enter_context(sharding_of(trainer).whole_weights(trained))

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Release them."""
        self.gathered.close()


class Means(Metric):
    """The weighted means of several values over batches and processes; a process may have no batch at all."""

    full_state_update = False
    sums: Tensor
    weights: Tensor

    def __init__(self, *names: str) -> None:
        super().__init__()
        self.names = names
        self.add_state("sums", torch.zeros(len(names)), dist_reduce_fx="sum")
        self.add_state("weights", torch.zeros(()), dist_reduce_fx="sum")

    def update(self, values: Mapping[str, Tensor], weight: float) -> None:
        """Add the mean of each value over a batch, and the batch's weight."""
        self.sums = self.sums + torch.stack([values[name].detach().float() for name in self.names]) * weight
        self.weights = self.weights + weight

    def compute(self) -> dict[str, Tensor]:
        """The means by name."""
        return dict(zip(self.names, (self.sums / self.weights).unbind(), strict=True))
