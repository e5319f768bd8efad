"""The gradient of a GRPO step: the answers in micro-batches, and the loss of each."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from erv.data.clip_reader import Sample
from erv.distributed.collectives import all_gather_object
from erv.distributed.sharding import sharding_of
from erv.engine.generate import Rollout, rows_of
from erv.engine.logprobs import CompletionLogps, completion_logps, micro_batches
from erv.engine.sampling import Sampling
from erv.engine.self_check import first_groups, verify_shared_prefix
from erv.grpo.advantages import Advantages
from erv.grpo.importance_sampling import Correction
from erv.grpo.loss import Denominators, Metrics, Objective, policy_loss
from erv.policy.batch import PolicyBatch
from erv.training.oom import is_out_of_memory, smaller_budget
from erv.training.validation import DevCurve


class GroupGradients(DevCurve):
    """What `GRPO` needs of its policy and its reference to make a gradient; its settings are described there."""

    model: Any
    reference: Any
    objective: Objective
    sampling: Sampling
    correction: Correction | None
    group_size: int
    token_budget: int
    verify_shared_prefix: bool

    @property
    def shared_out(self) -> bool:
        """Whether processes meet in every pass."""
        return sharding_of(self.trainer).collective_passes

    def gradients(
        self, batch: list[Sample], rollout: Rollout, advantage: Advantages, prompts: list[int], denominators: Denominators,
        old: Tensor | None,
    ) -> tuple[Tensor, list[Metrics]]:  # fmt: skip
        """Add up the gradients of the micro-batches; the log-probs `[N, C]` of the policy and the metrics of each.

        When memory is short it begins again with half the tokens in a micro-batch: the batch and its gradient stay the same.
        Processes that share weights out run equally many passes, and none can begin again alone.
        """
        sharding = sharding_of(self.trainer)
        models = [model for model in (self.model, self.reference) if model is not None]
        while True:
            self.optimizers().zero_grad()
            now, found, cut = torch.zeros_like(rollout.logps), [], []
            try:
                cuts = self.cut(batch, rollout.mask[rows_of(prompts, self.group_size)], prompts)
                passes = max(all_gather_object(len(cuts))) if self.shared_out else len(cuts)
                for number in range(passes):
                    with sharding.micro_batch(models, last=number == passes - 1):
                        if number >= len(cuts):
                            self.add_nothing(batch, rollout)
                            continue
                        cut = cuts[number]
                        now[rows_of(cut, self.group_size)], metrics = self.add_gradient(
                            batch, rollout, advantage, cut, denominators, old
                        )
                        found.append(metrics)
                return now, found
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                message = str(error).splitlines()[0]
            self.token_budget = smaller_budget(self.token_budget, cut, message, self.shared_out)

    def add_gradient(
        self, batch: list[Sample], rollout: Rollout, advantage: Advantages, cut: list[int], denominators: Denominators,
        old: Tensor | None,
    ) -> tuple[Tensor, Metrics]:  # fmt: skip
        """Add the gradient of the clips `cut`; nothing that it was made of is held on to."""
        logps, loss, metrics = self.loss(batch, rollout, advantage, cut, denominators, old)
        self.manual_backward(sharding_of(self.trainer).scale_loss(loss, self.model))
        return logps.detach(), {**metrics, "loss": loss.detach()}

    def add_nothing(self, batch: list[Sample], rollout: Rollout) -> None:
        """A pass like those of `add_gradient`, through one answer's first token, whose gradient is zero."""
        features = [batch[0][1]]
        prompts = [self.policy.processor.prompt_of(row, self.modalities) for row in features]
        collated = self.policy.processor.collate(prompts, features).to(self.device)
        tokens = rollout.tokens[: self.group_size, :1]
        if self.reference is not None:
            with torch.no_grad():
                self.logps(self.reference, collated, tokens, torch.ones_like(tokens))
        logps, _ = self.logps(self.model, collated, tokens, torch.ones_like(tokens))
        self.manual_backward(sharding_of(self.trainer).scale_loss(logps.sum() * 0, self.model))

    def cut(self, batch: list[Sample], mask: Tensor, prompts: list[int]) -> list[list[int]]:
        """The clips `prompts` in micro-batches within the token budget; none if `mask` leaves nothing to train on."""
        rows = [batch[i][1] for i in prompts]
        media = [sum(value.shape[:-1].numel() for value in row.values()) for row in rows]  # an upper bound
        sizes = [
            len(self.policy.processor.prompt_of(r, self.modalities).ids) + m for r, m in zip(rows, media, strict=True)
        ]
        cuts = (
            micro_batches(sizes, mask.sum(1).tolist(), self.group_size, self.token_budget) if bool(mask.any()) else ()
        )
        return [[prompts[i] for i in cut] for cut in cuts]

    def loss(
        self, batch: list[Sample], rollout: Rollout, advantage: Advantages, cut: list[int], denominators: Denominators,
        old: Tensor | None,
    ) -> tuple[Tensor, Tensor, Metrics]:  # fmt: skip
        """The policy's log-probs `[n, C]`, the loss and its metrics for the clips `cut` of the batch."""
        features = [batch[i][1] for i in cut]
        prompts = [self.policy.processor.prompt_of(row, self.modalities) for row in features]
        collated = self.policy.processor.collate(prompts, features).to(self.device)
        rows = rows_of(cut, self.group_size)
        tokens, mask, sampled = rollout.tokens[rows], rollout.mask[rows], rollout.logps[rows]
        ref = None
        if self.reference is not None:  # before the policy, whose activations would lie beside it
            with torch.no_grad():
                ref, _ = self.logps(self.reference, collated, tokens, mask)
        logps, entropy = self.logps(self.model, collated, tokens, mask, with_entropy=True)
        old = None if old is None else old[rows]
        before = logps.detach() if old is None else old
        mismatch = None if self.correction is None else self.correction(before, sampled, mask)
        loss, metrics = policy_loss(
            self.objective, denominators, logps, mask, advantage.values[rows], old=old, ref=ref, mismatch=mismatch,
            sampling=None if mismatch is None else sampled, entropy=entropy,
        )  # fmt: skip
        return logps, loss, metrics

    def logps(
        self, model: Any, prompts: PolicyBatch, tokens: Tensor, mask: Tensor, with_entropy: bool = False
    ) -> CompletionLogps:
        """Log-probs of the answers under `model`; the first ones that are trained on check the shared prefix."""
        sharding = sharding_of(self.trainer)
        sharding.prepare_forward(model)
        embeds, prompt_mask, _ = model.embed(prompts)
        answers = (tokens, mask, self.group_size)
        if self.verify_shared_prefix and model is self.model:
            few = first_groups(embeds, prompt_mask, *answers)
            with sharding.whole_weights([model]):
                parted = verify_shared_prefix(model.language_model, *few)
            sharding.prepare_forward(model)
            unclear = math.isnan(parted)  # nothing to compare yet
            self.verify_shared_prefix = any(all_gather_object(unclear)) if self.shared_out else unclear
        return completion_logps(
            model.language_model, embeds, prompt_mask, *answers, self.sampling.temperature, with_entropy
        )
