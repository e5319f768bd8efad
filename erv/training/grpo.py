"""Group relative policy optimisation with R = R_format + R_answer + R_E (paper, stage 3).

One iteration: G answers per clip, their rewards, advantages within each group, an update with the k3 KL to the frozen
policy that training began with. Spec: grpo-engine.md. Any model with `embed` and a decoder `language_model` will do.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Collection, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch

from erv.data.clip_reader import Sample
from erv.distributed import collectives
from erv.distributed.sharding import sharding_of
from erv.engine.generate import Rollout, rows_of, trained_mask
from erv.engine.layers import dropouts, is_known
from erv.engine.sampling import Sampling
from erv.evaluation.generate import generate
from erv.evaluation.judges.base import Judge
from erv.grpo.advantages import Advantages, Scale, advantages
from erv.grpo.importance_sampling import Correction
from erv.grpo.loss import Denominators, Metrics, Objective, add_metrics
from erv.policy.policy import Policy, frozen_copy, save_policy
from erv.rewards.composite import TotalReward
from erv.taxonomy import Taxonomy
from erv.training.callbacks.nan_guard import NonFinite
from erv.training.grpo_metrics import Answers, Scored, broken_batch, completion_metrics, completion_rows
from erv.training.grpo_update import GroupGradients
from erv.training.optim import Optim
from erv.utils.seeding import prompt_seed

_log = logging.getLogger(__name__)


class GRPO(GroupGradients):
    """GRPO over clips: `iterations` rollout batches of `batch_size` clips with `group_size` answers each.

    `epochs` says instead how often every training clip is seen: the iterations follow when the clips are known.
    `updates` is the number of optimiser steps per rollout (paper: 1); `token_budget` the most trunk tokens of a
    micro-batch; `scale` and `normalise_then_sum` are those of `advantages`. A group whose answers earn the same
    (`Advantages.silent`) is kept for its KL term, left out, or sampled again up to `max_resamples` times and then left
    out (`zero_spread`). `mask_overlong` trains on no answer without an end. `rollout_dtype` samples in a lower precision,
    which `correction` makes up for. `max_nonfinite` steps in a row that are not finite end the run. The first step checks
    the shared prefix (`verify_shared_prefix`). A decoder with dropout is refused: sampled and trained log-probs would be
    those of different networks. `dev_temperature` and `judge` belong to the dev curve.

    Of several processes each has an equal part of the clips, with all answers to them. Advantages, denominators, decisions and
    metrics are those of the whole batch; gradients are summed once per update.
    """

    inputs = "features"

    def __init__(
        self, policy: Policy, reward: TotalReward, taxonomy: Taxonomy, optim: Optim, modalities: Sequence[str], seed: int,
        objective: Objective, iterations: int | None, batch_size: int, group_size: int = 8, max_new_tokens: int = 512,
        sampling: Sampling | None = None, scale: Scale = "group", normalise_then_sum: bool = False, updates: int = 1,
        zero_spread: Literal["keep", "leave_out", "resample"] = "keep", max_resamples: int = 2, mask_overlong: bool = False,
        rollout_dtype: Literal["bfloat16", "float16"] | None = None, correction: Correction | None = None,
        max_nonfinite: int = 3, token_budget: int = 16384, verify_shared_prefix: bool = True, judge: Judge | None = None,
        dev_temperature: float = 0.7, epochs: float | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.automatic_optimization = False
        self.policy, self.reward, self.taxonomy, self.optim = policy, reward, taxonomy, optim
        self.modalities, self.seed, self.objective = tuple(modalities), seed, objective
        self.iterations, self.epochs, self.batch_size, self.group_size = iterations or 0, epochs, batch_size, group_size
        self.max_new_tokens, self.sampling, self.updates = max_new_tokens, sampling or Sampling(), updates
        self.scale, self.normalise_then_sum, self.token_budget = scale, normalise_then_sum, token_budget
        self.zero_spread, self.max_resamples, self.mask_overlong = zero_spread, max_resamples, mask_overlong
        self.rollout_dtype = getattr(torch, rollout_dtype) if rollout_dtype else None
        self.correction, self.nonfinite = correction, NonFinite(max_nonfinite)
        self.verify_shared_prefix, self.judge, self.dev_temperature = verify_shared_prefix, judge, dev_temperature
        if self.sampling.temperature == 0:
            raise ValueError("GRPO compares samples: algo.sampling.temperature must be above 0, got 0; set 1")
        settings = {"group_size": group_size, "iterations": iterations, "epochs": epochs}
        if message := self.contradiction(settings, getattr(policy.model, "trained", ())):
            raise ValueError(message)
        if chances := dropouts(policy.model.language_model):
            name, chance = next(iter(chances.items()))
            raise ValueError(
                "GRPO compares log-probs of two passes, so the decoder trains without dropout; it has some in "
                f"{len(chances)} places, first {name} with {chance}: set policy.lora.lora_dropout=0 where it is an adapter's, "
                "else 0 in the model's config"
            )
        if not is_known(policy.model.language_model):
            _log.warning(
                "%s shares no prefix: every answer runs its prompt anew", type(policy.model.language_model).__name__
            )
        self.model = policy.model
        self.reference = frozen_copy(policy.model) if objective.beta > 0 else None

    @staticmethod
    def contradiction(settings: Mapping[str, Any], trained: Collection[str]) -> str | None:
        """What in `algo` and policy.train cannot be, or None; needs no model."""
        lengths = [settings[key] for key in ("iterations", "epochs") if settings.get(key) is not None]
        if len(lengths) != 1 or lengths[0] <= 0:
            got = " and ".join(map(str, lengths)) or "neither"
            return f"set algo.iterations or algo.epochs above 0 and the other to null; got {got}"
        if settings.get("group_size", 2) < 2:
            return f"algo.group_size is at least 2, got {settings['group_size']}: an advantage compares the answers to one clip"
        towers = [part for part in ("vision_tower", "audio_tower") if part in trained]
        if towers:
            return (
                f"GRPO reads a clip's features once for all its answers and updates, so it trains no towers; policy.train has "
                f"{', '.join(towers)}: leave them out (the paper freezes both), or train them with SFT"
            )
        return None

    def steps(self, rows: int) -> int:
        """Batches of a run: `iterations`, or what `epochs` passes over `rows` clips take."""
        if self.epochs is not None:
            self.iterations = math.ceil(self.epochs * rows / self.batch_size)
        return self.iterations

    def train(self, mode: bool = True) -> GRPO:
        """Training mode for all but the reference."""
        super().train(mode)
        if self.reference is not None:
            self.reference.eval()
        return self

    def configure_model(self) -> None:
        """Share policy and reference out, where the strategy does so; gradients are sums."""
        sharding_of(self.trainer).shard([self.model, self.reference], mean_gradients=False)

    def training_step(self, batch: list[Sample], index: int) -> None:
        """Rollout, score, advantages, update."""
        iteration = index + 1
        with sharding_of(self.trainer).whole_weights([self.model]):
            rollout = self.rollout(batch, iteration)
            scored = self.score(batch, rollout)
            advantage = self.advantages(scored)
            if self.zero_spread == "resample":
                scored, advantage = self.resample(batch, scored, advantage, iteration)
        metrics = self.update(batch, scored, advantage, iteration)
        self.record(batch, scored, advantage, metrics, iteration)

    def rollout(self, batch: list[Sample], iteration: int, attempt: int = 0) -> Rollout:
        """G sampled answers per clip; what a clip gets depends on (seed, iteration, clip, attempt) alone."""
        again = ("again", attempt) if attempt else ()
        seeds = [prompt_seed(self.seed, iteration, clip.id, *again) for clip, _ in batch]
        lower = torch.autocast(self.device.type, self.rollout_dtype) if self.rollout_dtype else nullcontext()
        with lower:
            return generate(
                self.policy, batch, self.modalities, self.group_size, self.max_new_tokens, self.sampling, seeds
            )

    def score(self, batch: list[Sample], rollout: Rollout) -> Scored:
        """The rewards of every answer."""
        pairs = zip(rollout.tokens, rollout.mask.bool(), strict=True)
        texts = [self.policy.processor.decode(tokens[mask].tolist()) for tokens, mask in pairs]
        golds = [clip.label for clip, _ in batch for _ in range(self.group_size)]
        return Scored.of(rollout, texts, self.reward(texts, golds), list(self.reward.weights))

    def advantages(self, scored: Scored) -> Advantages:
        """How much better each answer of all processes is than the others of its clip."""
        rewards, weights = collectives.all_gather_rows(scored.rewards), tuple(self.reward.weights.values())
        return advantages(rewards, weights, self.group_size, self.scale, self.normalise_then_sum)

    def resample(
        self, batch: list[Sample], scored: Scored, advantage: Advantages, iteration: int
    ) -> tuple[Scored, Advantages]:
        """New answers, up to `max_resamples` times, for the clips whose answers all earned the same."""
        resampled, first = 0, collectives.rank() * len(batch)
        for attempt in range(1, self.max_resamples + 1):
            silent = advantage.silent.nonzero().flatten().tolist()
            if not silent:
                break
            own = [b - first for b in silent if 0 <= b - first < len(batch)]
            if own:
                again = [batch[b] for b in own]
                new = self.score(again, self.rollout(again, iteration, attempt))
                scored = scored.replaced(new, rows_of(own, self.group_size))
            advantage = self.advantages(scored)
            resampled += len(silent)
        self.log("train/resampled_groups", float(resampled), batch_size=len(batch))
        return scored, advantage

    def update(self, batch: list[Sample], scored: Scored, advantage: Advantages, iteration: int) -> Metrics:
        """`updates` optimiser steps on one rollout; the metrics of the last. A step that is not finite is left out."""
        optimiser, schedule, sharding = self.optimizers(), self.lr_schedulers(), sharding_of(self.trainer)
        rollout = replace(scored.rollout, mask=trained_mask(scored.rollout, self.mask_overlong))
        left_out = torch.zeros_like(advantage.silent) if self.zero_spread == "keep" else advantage.silent
        metrics: Metrics = {"left_out_groups": left_out.sum().float()}
        rank, size = collectives.rank(), collectives.world_size()
        advantage = advantage.part(rank, size)
        prompts = (~left_out.chunk(size)[rank]).nonzero().flatten().tolist()
        mask = rollout.mask[rows_of(prompts, self.group_size)]
        rows, tokens = collectives.all_reduce_numbers([len(mask), int(mask.sum())], self.device)
        denominators = Denominators(rows, max(tokens, 1.0))
        old = None
        for _ in range(self.updates):
            now, found = self.gradients(batch, rollout, advantage, prompts, denominators, old)
            old = now if old is None else old
            metrics |= add_metrics(collectives.all_gather_object({n: v.cpu() for n, v in add_metrics(found).items()}))
            if tokens:
                sharding.sum_gradients(self.model.parameters())
                metrics["grad_norm"] = sharding.clip_gradients(self.model.parameters(), self.optim.max_grad_norm)
                folder, loss, norm = (
                    Path(self.trainer.default_root_dir),
                    float(metrics["loss"]),
                    float(metrics["grad_norm"]),
                )
                sound = self.nonfinite.is_sound(
                    folder, iteration, loss, norm, lambda: broken_batch(batch, scored, advantage)
                )
                if sound or sharding.skips_nonfinite_steps:
                    optimiser.step()
            schedule.step()
        return metrics

    def record(
        self, batch: list[Sample], scored: Scored, advantage: Advantages, metrics: Metrics, iteration: int
    ) -> None:  # fmt: skip
        """Log the iteration under TRL's names and keep its completions."""
        answers = Answers.of_all([clip for clip, _ in batch], scored)
        metrics = metrics | completion_metrics(answers, advantage, list(self.reward.weights), self.taxonomy.neutral)
        self.log_dict({f"train/{name}": value for name, value in metrics.items()}, batch_size=len(batch))
        self.log("reward", metrics["reward"], prog_bar=True, logger=False, batch_size=len(batch))
        self.completions = completion_rows(iteration, answers, advantage) if collectives.rank() == 0 else []

    def configure_optimizers(self) -> Any:
        """AdamW over the trained parts; the schedule is stepped by hand, once per update."""
        optimiser, schedule = self.optim.build(self.model.parameters(), self.iterations * self.updates)
        return {"optimizer": optimiser, "lr_scheduler": schedule}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """What fits into memory."""
        checkpoint["token_budget"] = self.token_budget

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on with that."""
        self.token_budget = checkpoint["token_budget"]

    def save(self, folder: str) -> None:
        """Write the policy."""
        save_policy(self.policy, folder)
