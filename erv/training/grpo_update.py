"""The gradient of a GRPO update: completions in micro-batches, the loss of each, and what happens when memory is short."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from erv.data.clip_reader import Sample
from erv.distributed.collectives import all_gather_object
from erv.engine.generate import Rollout, group_rows
from erv.engine.logprobs import CompletionLogps, completion_logps, micro_batches
from erv.engine.self_check import self_check_sample, verify_shared_prefix
from erv.grpo.advantages import Advantages
from erv.grpo.loss import Denominators, Metrics, policy_loss
from erv.policy.base import PolicyBatch
from erv.policy.policy import Policy
from erv.training.grpo_settings import LossSettings, RolloutSettings, UpdateSettings
from erv.training.oom import is_out_of_memory, smaller_budget
from erv.training.stage import Stage


@dataclass(frozen=True)
class UpdateBatch:
    """What the updates of one iteration are computed from: this process' B clips with N = B * G completions, prompt-major."""

    samples: list[Sample]
    """The B clips with their features."""

    rollout: Rollout
    """The completions; its mask marks the tokens that are trained on."""

    advantages: Advantages
    """Of these N completions."""

    trained: list[int]
    """Numbers of the clips whose groups are trained on."""

    denominators: Denominators
    """Completions and tokens of the whole batch, over all processes."""


class GroupGradient:
    """Adds up the gradient of the GRPO loss over micro-batches.

    Args:
        stage: the LightningModule whose backward pass and optimizer are used.
        policy: the policy that is trained.
        reference: the frozen policy of the KL term, or None without one.
        modalities: what prompts show of a clip.
    """

    def __init__(
        self,
        stage: Stage,
        policy: Policy,
        reference: Any,
        modalities: tuple[str, ...],
        rollout: RolloutSettings,
        loss: LossSettings,
        update: UpdateSettings,
    ) -> None:
        self.stage, self.policy, self.reference, self.modalities = stage, policy, reference, modalities
        self.model: Any = policy.model
        self.group_size, self.temperature, self.loss_settings = rollout.group_size, rollout.sampling.temperature, loss
        self.token_budget = update.token_budget  # smaller after an out-of-memory error; kept in checkpoints
        self.verify_shared_prefix = update.verify_shared_prefix  # until a first pass has been compared

    def accumulate(self, batch: UpdateBatch, old: Tensor | None) -> tuple[Tensor, list[Metrics]]:
        """Add up the gradient of `batch` in the parameters' `grad`.

        When memory is short it begins again with half the tokens in a micro-batch: the batch and its gradient stay the same.
        Processes that shard weights run equally many passes, since each pass is a collective operation, and none of them can
        begin again alone.

        Args:
            old: log-probs `[N, C]` before the first update of this rollout; None in the first one.

        Returns:
            The policy's log-probs `[N, C]` (0 where nothing is trained on), and the metrics of each micro-batch.
        """
        sharding = self.stage.sharding
        models = [model for model in (self.model, self.reference) if model is not None]
        while True:
            self.stage.optimizers().zero_grad()
            logps: Tensor = torch.zeros_like(batch.rollout.logps)
            metrics: list[Metrics] = []
            clips: list[int] = []
            try:
                cuts = self.micro_batches(batch)
                passes = max(all_gather_object(len(cuts))) if sharding.collective_passes else len(cuts)
                for number in range(passes):
                    with sharding.micro_batch(models, last=number == passes - 1):
                        if number >= len(cuts):
                            self.add_zero_gradient(batch)
                            continue
                        clips = cuts[number]
                        logps[group_rows(clips, self.group_size)], figures = self.add_gradient(batch, clips, old)
                        metrics.append(figures)
                return logps, metrics
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                message = str(error).splitlines()[0]
            # outside the handler, whose exception holds on to the tensors of the failed pass
            self.token_budget = smaller_budget(self.token_budget, clips, message, sharding.collective_passes)

    def micro_batches(self, batch: UpdateBatch) -> list[list[int]]:
        """The clips that are trained on, in micro-batches within the token budget; none where no token is trained on."""
        mask = batch.rollout.mask[group_rows(batch.trained, self.group_size)]
        if not bool(mask.any()):
            return []
        features = [batch.samples[clip][1] for clip in batch.trained]
        prompts = [len(self.policy.processor.prompt_of(row, self.modalities).ids) for row in features]
        media = [
            sum(value.shape[:-1].numel() for value in row.values()) for row in features
        ]  # an upper bound in tokens
        lengths = [prompt + tokens for prompt, tokens in zip(prompts, media, strict=True)]
        cuts = micro_batches(lengths, mask.sum(1).tolist(), self.group_size, self.token_budget)
        return [[batch.trained[i] for i in cut] for cut in cuts]

    def add_gradient(self, batch: UpdateBatch, clips: list[int], old: Tensor | None) -> tuple[Tensor, Metrics]:
        """Add the gradient of a micro-batch; returns its log-probs `[n, C]` and metrics, detached from the graph."""
        logps, loss, metrics = self.loss(batch, clips, old)
        self.stage.manual_backward(self.stage.sharding.scale_loss(loss, self.model))
        return logps.detach(), {**metrics, "loss": loss.detach()}

    def add_zero_gradient(self, batch: UpdateBatch) -> None:
        """Run the passes of a micro-batch with a gradient of zero, because other processes have one more than this one.

        The first token of one group is enough.
        """
        collated = self._collate(batch, [0])
        tokens = batch.rollout.tokens[: self.group_size, :1]
        if self.reference is not None:
            with torch.no_grad():
                self.logps(self.reference, collated, tokens, torch.ones_like(tokens))
        logps, _ = self.logps(self.model, collated, tokens, torch.ones_like(tokens))
        self.stage.manual_backward(self.stage.sharding.scale_loss(logps.sum() * 0, self.model))

    def loss(self, batch: UpdateBatch, clips: list[int], old: Tensor | None) -> tuple[Tensor, Tensor, Metrics]:
        """The policy's log-probs `[n, C]`, the loss and its metrics for the completions of `clips`."""
        collated, rows = self._collate(batch, clips), group_rows(clips, self.group_size)
        tokens, mask, sampled = batch.rollout.tokens[rows], batch.rollout.mask[rows], batch.rollout.logps[rows]
        reference_logps = None
        if self.reference is not None:  # before the policy, whose activations would take memory beside it
            with torch.no_grad():
                reference_logps, _ = self.logps(self.reference, collated, tokens, mask)
        logps, entropy = self.logps(self.model, collated, tokens, mask, with_entropy=True)
        old = None if old is None else old[rows]
        correction = self.loss_settings.correction
        ratio = None if correction is None else correction(logps.detach() if old is None else old, sampled, mask)
        loss, metrics = policy_loss(
            self.loss_settings.objective,
            batch.denominators,
            logps,
            mask,
            batch.advantages.values[rows],
            old_logps=old,
            ref_logps=reference_logps,
            importance_ratio=ratio,
            sampling_logps=None if ratio is None else sampled,
            entropy=entropy,
        )
        return logps, loss, metrics

    def logps(
        self, model: Any, prompts: PolicyBatch, tokens: Tensor, mask: Tensor, with_entropy: bool = False
    ) -> CompletionLogps:
        """Log-probs of completions under `model`; the first ones that are trained on also check the shared prefix."""
        sharding = self.stage.sharding
        sharding.prepare_forward(model)
        embeds, prompt_mask, _ = model.embed(prompts)
        completions = (tokens, mask, self.group_size)
        if self.verify_shared_prefix and model is self.model:
            probe = self_check_sample(embeds, prompt_mask, *completions)
            # the check runs passes of its own, with gradients that are not accumulated
            with sharding.whole_weights([model]):
                difference = verify_shared_prefix(model.language_model, *probe)
            sharding.prepare_forward(model)
            unclear = math.isnan(difference)  # the gradient was zero: try again in the next pass
            self.verify_shared_prefix = any(all_gather_object(unclear)) if sharding.collective_passes else unclear
        return completion_logps(model.language_model, embeds, prompt_mask, *completions, self.temperature, with_entropy)

    def _collate(self, batch: UpdateBatch, clips: list[int]) -> Any:
        """The prompts and features of some clips, on the device."""
        features = [batch.samples[clip][1] for clip in clips]
        prompts = [self.policy.processor.prompt_of(row, self.modalities) for row in features]
        return self.policy.processor.collate(prompts, features).to(self.stage.device)
