"""Group relative policy optimisation with R = R_format + R_answer + R_E (paper, stage 3).

One iteration: G answers per clip, their rewards, advantages within each group, an update with the k3 KL to the frozen
policy that training began with. Spec: grpo-engine.md. Left out so far: resampling of groups without spread.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor, nn

from erv.emotions import Taxonomy
from erv.grpo.advantages import Advantages, Scale, advantages, reward_metrics
from erv.grpo.logprobs import completion_logps, micro_batches, verify_shared_prefix
from erv.grpo.objective import Denominators, Metrics, Objective, add_metrics, policy_loss
from erv.grpo.rollout import Rollout
from erv.grpo.sampling import Sampling
from erv.judges.base import Judge
from erv.lit.data import Sample
from erv.lit.evaluation import Evaluation, generate, judge_all, predict, prompt_seed, read, reward_by_judge
from erv.lit.optim import Optim
from erv.metrics.summary import summarise
from erv.policy import Policy, save_policy
from erv.policy.model import HumanOmni
from erv.records import Prediction, RewardParts
from erv.rewards.total import TotalReward


@dataclass(frozen=True)
class Scored:
    """The answers of one iteration, N = B * G, prompt-major: tokens, texts and rewards."""

    rollout: Rollout
    texts: list[str]
    parts: list[RewardParts]
    rewards: Tensor  # [N, K], NaN where a reward could not be computed


class GRPO(pl.LightningModule):
    """GRPO over clips: `iterations` rollout batches of `batch_size` clips with `group_size` answers each.

    `updates` is the number of optimiser steps per rollout (paper: 1); `token_budget` the most trunk tokens of a
    micro-batch; `scale` and `normalise_then_sum` are those of `advantages`. `dev_temperature` and `judge` belong to the
    dev curve, which is logged and steers nothing.
    """

    data = "features"

    def __init__(
        self, policy: Policy, reward: TotalReward, taxonomy: Taxonomy, optim: Optim, modalities: Sequence[str], seed: int,
        objective: Objective, iterations: int, batch_size: int, group_size: int = 8, max_new_tokens: int = 512,
        temperature: float = 1.0, scale: Scale = "group", normalise_then_sum: bool = False, updates: int = 1,
        token_budget: int = 16384, verify_prefix: bool = True, judge: Judge | None = None, dev_temperature: float = 0.7,
    ) -> None:  # fmt: skip
        super().__init__()
        self.automatic_optimization = False
        self.strict_loading = False  # the reference is not in checkpoints: it is where the run began
        self.policy, self.reward, self.taxonomy, self.optim = policy, reward, taxonomy, optim
        self.modalities, self.seed, self.objective = tuple(modalities), seed, objective
        self.iterations, self.batch_size, self.group_size = iterations, batch_size, group_size
        self.max_new_tokens, self.temperature, self.updates = max_new_tokens, temperature, updates
        self.scale, self.normalise_then_sum, self.token_budget = scale, normalise_then_sum, token_budget
        self.verify_prefix, self.judge = verify_prefix, judge
        self.dev_plan = Evaluation(
            "dev", 1, dev_temperature, greedy=False, max_new_tokens=max_new_tokens, batch_size=batch_size
        )
        self.model = policy.model
        self.reference = frozen_copy(policy.model) if objective.beta > 0 else None
        self.prompt = policy.processor.prompt(self.modalities)
        self.rows: list[dict[str, Any]] = []  # the completions of the last iteration, for completions.parquet
        self.dev_predictions: list[Prediction] = []

    def steps(self, rows: int) -> int:
        """Batches of a run, whatever the number of clips."""
        return self.iterations

    def training_step(self, batch: list[Sample], index: int) -> None:
        """Rollout, score, advantages, update."""
        iteration = index + 1
        rollout = self.rollout(batch, iteration)
        scored = self.score(batch, rollout)
        advantage = self.advantages(scored)
        metrics = self.update(batch, rollout, advantage)
        self.record(batch, scored, advantage, metrics, iteration)

    def rollout(self, batch: list[Sample], iteration: int) -> Rollout:
        """G sampled answers per clip; what a clip gets depends on (seed, iteration, clip) alone."""
        seeds = [prompt_seed(self.seed, iteration, clip.id) for clip, _ in batch]
        sampling = Sampling(self.temperature)
        return generate(self.policy, batch, self.modalities, self.group_size, self.max_new_tokens, sampling, seeds)

    def score(self, batch: list[Sample], rollout: Rollout) -> Scored:
        """The rewards of every answer."""
        pairs = zip(rollout.tokens, rollout.mask.bool(), strict=True)
        texts = [self.policy.processor.decode(tokens[mask].tolist()) for tokens, mask in pairs]
        golds = [clip.label for clip, _ in batch for _ in range(self.group_size)]
        parts = self.reward(texts, golds)
        values = [[np.nan if (v := p.parts[name]) is None else v for name in self.reward.weights] for p in parts]
        return Scored(rollout, texts, parts, torch.tensor(values, dtype=torch.float32, device=self.device))

    def advantages(self, scored: Scored) -> Advantages:
        """How much better each answer is than the others of its clip."""
        weights = list(self.reward.weights.values())
        return advantages(scored.rewards, weights, self.group_size, self.scale, self.normalise_then_sum)

    def update(self, batch: list[Sample], rollout: Rollout, advantage: Advantages) -> Metrics:
        """`updates` optimiser steps on one rollout; the metrics of the last."""
        optimiser, schedule = self.optimizers(), self.lr_schedulers()
        cuts = self.cut(batch, rollout)
        denominators = Denominators.of(rollout.mask)
        old: list[Tensor | None] = [None] * len(cuts)
        for number in range(self.updates):
            optimiser.zero_grad()
            found = []
            for place, cut in enumerate(cuts):
                logps, loss, metrics = self.loss(batch, rollout, advantage, cut, denominators, old[place])
                self.manual_backward(loss)
                found.append({**metrics, "loss": loss.detach()})
                if number == 0 and self.updates > 1:
                    old[place] = logps.detach()
            norm = self.clip()
            optimiser.step()
            schedule.step()
        return {**add_metrics(found), "grad_norm": norm}

    def cut(self, batch: list[Sample], rollout: Rollout) -> list[list[int]]:
        """Micro-batches of whole groups within the token budget."""
        media = sum(batch[0][1][name].shape[:-1].numel() for name in self.modalities)  # an upper bound
        lengths = rollout.mask.sum(1).tolist()
        return micro_batches([len(self.prompt.ids) + media] * len(batch), lengths, self.group_size, self.token_budget)

    def loss(
        self, batch: list[Sample], rollout: Rollout, advantage: Advantages, cut: list[int], denominators: Denominators,
        old: Tensor | None,
    ) -> tuple[Tensor, Tensor, Metrics]:  # fmt: skip
        """The policy's log-probs `[n, C]`, the loss and its metrics for the clips `cut` of the batch."""
        processor = self.policy.processor
        features = [batch[i][1] for i in cut]
        collated = processor.collate([self.prompt] * len(cut), features).to(self.device)
        rows = [i * self.group_size + g for i in cut for g in range(self.group_size)]
        tokens, mask = rollout.tokens[rows], rollout.mask[rows]
        embeds, prompt_mask, _ = self.model.embed(collated)
        lm = self.model.language_model
        if self.verify_prefix:
            verify_shared_prefix(
                lm, embeds, prompt_mask, tokens, mask, self.group_size, tolerance=prefix_tolerance(embeds)
            )
            self.verify_prefix = False
        arguments = (tokens, mask, self.group_size, self.temperature)
        logps, entropy = completion_logps(lm, embeds, prompt_mask, *arguments, with_entropy=True)
        ref = None
        if self.reference is not None:
            with torch.no_grad():
                ref_embeds, _, _ = self.reference.embed(collated)
                ref = completion_logps(self.reference.language_model, ref_embeds, prompt_mask, *arguments).logps
        values = advantage.values[rows]
        loss, metrics = policy_loss(
            self.objective, denominators, logps, mask, values, old=old, ref=ref, entropy=entropy
        )
        return logps, loss, metrics

    def clip(self) -> Tensor:
        """Clip the gradient; FloatingPointError when it is not finite, before it can reach the weights."""
        limit = self.optim.max_grad_norm or float("inf")
        norm = nn.utils.clip_grad_norm_([p for p in self.model.parameters() if p.grad is not None], limit)
        if not torch.isfinite(norm):
            raise FloatingPointError(
                f"the gradient is {float(norm)} at iteration {self.trainer.fit_loop.epoch_loop.batch_idx + 1}; the last "
                "checkpoint is sound: lower optim.lr, or set trainer.precision=32-true, and run the same command again"
            )
        return norm

    def record(
        self, batch: list[Sample], scored: Scored, advantage: Advantages, metrics: Metrics, iteration: int
    ) -> None:  # fmt: skip
        """Log the iteration under TRL's names and keep its completions."""
        lengths, finished = scored.rollout.mask.sum(1).float(), scored.rollout.finished.float()
        sentences = [s for p in scored.parts for s in p.sentences]
        metrics = metrics | reward_metrics(scored.rewards, list(self.reward.weights), advantage)
        metrics |= {"completions/mean_length": lengths.mean(), "completions/clipped_ratio": 1 - finished.mean()}
        metrics["completions/distinct"] = torch.tensor(len(set(scored.texts)) / len(scored.texts))
        if sentences:
            neutral = sum(s.emotions == (self.taxonomy.neutral,) for s in sentences) / len(sentences)
            metrics["completions/neutral_share"] = torch.tensor(neutral)
        self.log_dict({f"train/{name}": value for name, value in metrics.items()}, batch_size=len(batch))
        self.log("iter", float(iteration), batch_size=len(batch))
        self.log("train/lr", self.lr_schedulers().get_last_lr()[0], batch_size=len(batch))
        self.log("reward", metrics["reward"], prog_bar=True, logger=False, batch_size=len(batch))
        clips = [clip for clip, _ in batch for _ in range(self.group_size)]
        self.rows = [
            {"iter": iteration, "clip_id": clip.id, "gold": clip.label, "text": text, "tokens": int(length),
             "advantage": float(value), "reward": part.total, **{f"reward_{k}": v for k, v in part.parts.items()}}
            for clip, text, length, value, part in zip(
                clips, scored.texts, lengths, advantage.values, scored.parts, strict=True
            )
        ]  # fmt: skip

    def on_validation_epoch_start(self) -> None:
        """Collect the dev predictions of this round."""
        self.dev_predictions = []

    def validation_step(self, batch: list[Sample], _: int) -> None:
        """One sampled answer per dev clip, with rewards and verdicts."""
        found = predict(
            self.policy, batch, self.modalities, self.dev_plan, "sampled", self.taxonomy, self.seed, progress=False
        )
        found = read(found, self.reward)
        self.dev_predictions += judge_all(found, self.judge) if self.judge else found

    def on_validation_epoch_end(self) -> None:
        """Log the dev curve: figures, and the verifier's R_E beside the judge's, whose parting shows gaming."""
        found = self.dev_predictions
        self.log("dev/format_rate", float(np.mean([p.well_formed for p in found])))
        if self.judge is None:
            self.log("dev/war", float(np.mean([p.answer == p.gold for p in found])), prog_bar=True)
            return
        figures = summarise(found, self.taxonomy, self.judge.name, resamples=1)
        figures["judge_reward"] = reward_by_judge(found, self.judge, self.reward)
        for name in ("war", "uar", "eea", "epc", "fcr", "verifier_reward", "judge_reward", "neutral_share"):
            if figures.get(name) is not None:
                self.log(f"dev/{name}", figures[name], prog_bar=name == "fcr")

    def configure_optimizers(self) -> Any:
        """AdamW over the trained parts; the schedule is stepped by hand, once per update."""
        steps = self.iterations * self.updates
        optimiser, schedule = self.optim.build(self.model.parameters(), steps)
        return {"optimizer": optimiser, "lr_scheduler": schedule}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Leave the reference out: it is loaded from where the run began."""
        state = checkpoint["state_dict"]
        for name in [name for name in state if name.startswith("reference.")]:
            del state[name]

    def save(self, folder: str) -> None:
        """Write the policy."""
        save_policy(self.policy, folder)


def frozen_copy(model: HumanOmni) -> HumanOmni:
    """A copy that is never trained; the parts that `model` does not train either are shared, not copied."""
    shared = [p for p in model.parameters() if not p.requires_grad]
    reference = copy.deepcopy(model, {id(p): p for p in shared})
    return reference.set_trainable([]).eval()


def prefix_tolerance(embeds: Tensor) -> float:
    """How far gradients of equal computations may part: rounding of the precision in use."""
    return 1e-4 if embeds.dtype == torch.float32 and not torch.is_autocast_enabled(embeds.device.type) else 5e-2
