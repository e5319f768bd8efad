"""Group relative policy optimisation with R = R_format + R_answer + R_E (paper, stage 3).

One iteration: G completions per clip, their rewards, advantages within each group, an update with the k3 KL to the frozen
policy that training began with. Spec: grpo-engine.md. Any model with `embed` and a decoder `language_model` will do.

The settings are described in grpo_settings.py; the gradient is computed in grpo_update.py.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from erv.config.rules import grpo_settings_problem
from erv.data.clip_reader import Sample
from erv.distributed import collectives
from erv.engine.generate import Rollout, group_rows, loss_mask
from erv.engine.layers import dropout_probabilities, supports_shared_prefix
from erv.engine.sampling import Sampling
from erv.evaluation.generate import generate
from erv.evaluation.judges.base import Judge
from erv.grpo.advantages import Advantages, Scale, advantages
from erv.grpo.importance_sampling import ImportanceCorrection
from erv.grpo.loss import Denominators, GRPOLoss, Metrics, add_metrics
from erv.policy.policy import Policy, frozen_copy, save_policy
from erv.rewards.composite import CompositeReward
from erv.taxonomy import Taxonomy
from erv.training.callbacks.nan_guard import NonFiniteCounter
from erv.training.grpo_metrics import Scored, ScoredBatch, completion_metrics, completion_rows, nonfinite_batch
from erv.training.grpo_settings import (
    AdvantageSettings,
    LossSettings,
    RolloutDtype,
    RolloutSettings,
    UpdateSettings,
    ValidationSettings,
    ZeroSpread,
)
from erv.training.grpo_update import GroupGradient, UpdateBatch
from erv.training.optim import OptimizerSettings
from erv.training.stage import Stage
from erv.training.validation import PolicyValidation
from erv.utils.seeding import prompt_seed

_log = logging.getLogger(__name__)


class GRPO(Stage):
    """GRPO over clips: `iterations` rollout batches of `batch_size` clips with a group of completions each.

    Of several processes each has an equal part of the clips, with all completions of them. Advantages, denominators, decisions
    and metrics are those of the whole batch; gradients are summed once per update.

    Args:
        policy: what is trained. A decoder with dropout is refused: sampled and trained log-probs would be those of
            different networks.
        reward: the weighted sum of rewards.
        optim: optimizer and schedule, which is stepped once per update.
        modalities: what prompts show of a clip.
        iterations: rollout batches of the run; or `epochs`, the passes over the training clips.
        batch_size: clips of a rollout batch, over all processes.
        judge: reads explanations for the dev curve; not a reward.
        rollout_dtype: `RolloutSettings.dtype`.
        dev_temperature: `ValidationSettings.temperature`.

    The other arguments are those of the records in grpo_settings.py by the same names.
    """

    inputs = "features"
    policy: Policy
    model: Any

    def __init__(
        self,
        policy: Policy,
        reward: CompositeReward,
        taxonomy: Taxonomy,
        optim: OptimizerSettings,
        modalities: Sequence[str],
        seed: int,
        objective: GRPOLoss,
        iterations: int | None,
        batch_size: int,
        group_size: int = 8,
        max_new_tokens: int = 512,
        sampling: Sampling | None = None,
        scale: Scale = "group",
        normalise_then_sum: bool = False,
        updates: int = 1,
        zero_spread: ZeroSpread = "keep",
        max_resamples: int = 2,
        mask_overlong: bool = False,
        rollout_dtype: RolloutDtype | None = None,
        correction: ImportanceCorrection | None = None,
        max_nonfinite: int = 3,
        token_budget: int = 16384,
        verify_shared_prefix: bool = True,
        judge: Judge | None = None,
        dev_temperature: float = 0.7,
        epochs: float | None = None,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.rollout_settings = RolloutSettings(
            group_size, max_new_tokens, sampling or Sampling(), rollout_dtype, zero_spread, max_resamples
        )
        self.advantage_settings = AdvantageSettings(scale, normalise_then_sum)
        self.loss_settings = LossSettings(objective, mask_overlong, correction)
        self.update_settings = UpdateSettings(updates, token_budget, max_nonfinite, verify_shared_prefix)
        validation_settings = ValidationSettings(dev_temperature)

        settings = {"group_size": group_size, "iterations": iterations, "epochs": epochs}
        if self.rollout_settings.sampling.temperature == 0:
            raise ValueError("GRPO compares samples: algo.sampling.temperature must be above 0, got 0; set 1")
        if message := grpo_settings_problem(settings, getattr(policy.model, "trained", ())):
            raise ValueError(message)
        if chances := dropout_probabilities(policy.model.language_model):
            name, chance = next(iter(chances.items()))
            raise ValueError(
                "GRPO compares log-probs of two passes, so the decoder trains without dropout; it has some in "
                f"{len(chances)} places, first {name} with {chance}: set policy.lora.lora_dropout=0 where it is an adapter's, "
                "else 0 in the model's config"
            )
        if not supports_shared_prefix(policy.model.language_model):
            _log.warning(
                "%s shares no prefix: every answer runs its prompt anew", type(policy.model.language_model).__name__
            )
        self.policy, self.reward, self.taxonomy, self.optim, self.seed = policy, reward, taxonomy, optim, seed
        self.modalities, self.batch_size = tuple(modalities), batch_size
        self.iterations, self.epochs = iterations or 0, epochs
        self.nonfinite = NonFiniteCounter(max_nonfinite)
        self.model = policy.model
        self.reference: Any = frozen_copy(policy.model) if objective.beta > 0 else None
        self.gradient = GroupGradient(
            self,
            policy,
            self.reference,
            self.modalities,
            self.rollout_settings,
            self.loss_settings,
            self.update_settings,
        )
        self.validation = PolicyValidation(
            policy, reward, taxonomy, self.modalities, validation_settings, max_new_tokens, batch_size, seed, judge
        )

    def steps(self, rows: int) -> int:
        """Rollout batches of the run: `iterations`, or what `epochs` passes over `rows` clips take."""
        if self.epochs is not None:
            self.iterations = math.ceil(self.epochs * rows / self.batch_size)
        return self.iterations

    def train(self, mode: bool = True) -> GRPO:
        """Set training mode for all but the reference."""
        super().train(mode)
        if self.reference is not None:
            self.reference.eval()
        return self

    def configure_model(self) -> None:
        """Shard policy and reference; gradients are sums, because the loss is divided by counts over all processes."""
        self.sharding.shard([self.model, self.reference], mean_gradients=False)

    def configure_optimizers(self) -> Any:
        """AdamW over the trained parts; the schedule is stepped by hand, once per update."""
        optimizer, schedule = self.optim.build(self.model.parameters(), self.iterations * self.update_settings.updates)
        return {"optimizer": optimizer, "lr_scheduler": schedule}

    def training_step(self, batch: list[Sample], index: int) -> None:
        """Rollout, score, advantages, update."""
        iteration = index + 1
        with self.sharding.whole_weights([self.model]):
            rollout = self.rollout(batch, iteration)
            scored = self.score(batch, rollout)
            advantage = self.advantages(scored)
            if self.rollout_settings.zero_spread == "resample":
                scored, advantage = self.resample(batch, scored, advantage, iteration)
        metrics = self.update(batch, scored, advantage, iteration)
        self.record(batch, scored, advantage, metrics, iteration)

    def rollout(self, batch: list[Sample], iteration: int, attempt: int = 0) -> Rollout:
        """Sample G completions per clip; those of a clip depend on (seed, iteration, clip, attempt) alone."""
        settings = self.rollout_settings
        resampling = ("again", attempt) if attempt else ()
        seeds = [prompt_seed(self.seed, iteration, clip.id, *resampling) for clip, _ in batch]
        dtype = settings.autocast_dtype
        with torch.autocast(self.device.type, dtype) if dtype else nullcontext():
            return generate(
                self.policy,
                batch,
                self.modalities,
                settings.group_size,
                settings.max_new_tokens,
                settings.sampling,
                seeds,
            )

    def score(self, batch: list[Sample], rollout: Rollout) -> Scored:
        """Compute the rewards of every completion."""
        pairs = zip(rollout.tokens, rollout.mask.bool(), strict=True)
        texts = [self.policy.processor.decode(tokens[mask].tolist()) for tokens, mask in pairs]
        clips = [clip for clip, _ in batch for _ in range(self.rollout_settings.group_size)]
        rewards = self.reward(texts, [clip.label for clip in clips], clips, rollout.mask.sum(1).tolist())
        return Scored.of(rollout, texts, rewards, list(self.reward.weights))

    def advantages(self, scored: Scored) -> Advantages:
        """The advantages of the completions of all processes, each within the group of its clip."""
        return advantages(
            collectives.all_gather_rows(scored.rewards),
            tuple(self.reward.weights.values()),
            self.rollout_settings.group_size,
            self.advantage_settings.scale,
            self.advantage_settings.normalise_then_sum,
        )

    def resample(
        self, batch: list[Sample], scored: Scored, advantage: Advantages, iteration: int
    ) -> tuple[Scored, Advantages]:
        """Sample groups again, up to `max_resamples` times, while their completions all earn the same."""
        resampled, first = 0, collectives.rank() * len(batch)  # number of this process' first clip in the whole batch
        for attempt in range(1, self.rollout_settings.max_resamples + 1):
            silent = advantage.zero_variance.nonzero().flatten().tolist()
            if not silent:
                break
            local = [clip - first for clip in silent if 0 <= clip - first < len(batch)]
            if local:
                clips = [batch[i] for i in local]
                new = self.score(clips, self.rollout(clips, iteration, attempt))
                scored = scored.replaced(new, group_rows(local, self.rollout_settings.group_size))
            advantage = self.advantages(scored)
            resampled += len(silent)
        self.log("train/resampled_groups", float(resampled), batch_size=len(batch))
        return scored, advantage

    def update(self, batch: list[Sample], scored: Scored, advantage: Advantages, iteration: int) -> Metrics:
        """Take `updates` optimizer steps on one rollout; returns the metrics of the last.

        A step whose loss or gradient is not finite is left out.
        """
        optimizer, schedule = self.optimizers(), self.lr_schedulers()
        left_out = advantage.zero_variance
        if self.rollout_settings.zero_spread == "keep":
            left_out = torch.zeros_like(left_out)
        metrics: Metrics = {"left_out_groups": left_out.sum().float()}

        # from here on only this process' part of the batch
        rank, world_size = collectives.rank(), collectives.world_size()
        rollout = replace(scored.rollout, mask=loss_mask(scored.rollout, self.loss_settings.mask_overlong))
        advantage = advantage.part(rank, world_size)
        trained = (~left_out.chunk(world_size)[rank]).nonzero().flatten().tolist()
        mask = rollout.mask[group_rows(trained, self.rollout_settings.group_size)]
        # of all processes: with these denominators the sum of their gradients is that of the whole batch
        rows, tokens = collectives.all_reduce_numbers([len(mask), int(mask.sum())], self.device)
        update_batch = UpdateBatch(batch, rollout, advantage, trained, Denominators(rows, max(tokens, 1.0)))

        old = None  # log-probs before the first update, which the later ones' ratios are taken to
        for _ in range(self.update_settings.updates):
            logps, parts = self.gradient.accumulate(update_batch, old)
            old = logps if old is None else old
            local = {name: value.cpu() for name, value in add_metrics(parts).items()}
            metrics |= add_metrics(collectives.all_gather_object(local))
            if tokens:
                self.sharding.sum_gradients(self.model.parameters())
                metrics["grad_norm"] = self.clip()
                is_finite = self.nonfinite.is_finite(
                    Path(self.trainer.default_root_dir),
                    iteration,
                    float(metrics["loss"]),
                    float(metrics["grad_norm"]),
                    lambda: nonfinite_batch(batch, scored, advantage),
                )
                if is_finite or self.sharding.skips_nonfinite_steps:
                    optimizer.step()
            schedule.step()
        return metrics

    def clip(self) -> torch.Tensor:
        """Clip the gradient; returns its norm before."""
        return self.sharding.clip_gradients(self.model.parameters(), self.optim.max_grad_norm)

    def record(
        self, batch: list[Sample], scored: Scored, advantage: Advantages, metrics: Metrics, iteration: int
    ) -> None:
        """Log the iteration under TRL's names and keep its completions."""
        scored_batch = ScoredBatch.gather([clip for clip, _ in batch], scored)
        metrics = metrics | completion_metrics(
            scored_batch, advantage, list(self.reward.weights), self.taxonomy.neutral
        )
        self.log_dict({f"train/{name}": value for name, value in metrics.items()}, batch_size=len(batch))
        self.log("reward", metrics["reward"], prog_bar=True, logger=False, batch_size=len(batch))
        self.completions = completion_rows(iteration, scored_batch, advantage) if collectives.rank() == 0 else []

    def on_validation_epoch_start(self) -> None:
        """Begin a round of the dev curve."""
        self.validation.start(self.device)

    def validation_step(self, batch: list[Sample], _: int) -> None:
        """Sample and judge one completion per dev clip."""
        self.validation.add(batch)

    def on_validation_epoch_end(self) -> None:
        """Log the figures of this round, over all processes."""
        for name, value in self.validation.figures().items():
            self.log(f"dev/{name}", value, prog_bar=name == self.validation.headline)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save the token budget, which out-of-memory errors may have halved."""
        checkpoint["token_budget"] = self.gradient.token_budget

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore it."""
        self.gradient.token_budget = checkpoint["token_budget"]

    def save(self, folder: str) -> None:
        """Write the policy."""
        save_policy(self.policy, folder)
