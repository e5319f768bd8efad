"""Answers of a policy: the one way they are sampled, in training, in evaluation and for a single clip."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from erv.data.clip_reader import Sample
from erv.engine.generate import Rollout, check_positions, rollout
from erv.engine.sampling import Sampling
from erv.evaluation.predictions import made
from erv.evaluation.settings import Evaluation
from erv.policy.policy import Policy
from erv.taxonomy import Taxonomy
from erv.types import Decoding, Prediction
from erv.utils.seeding import prompt_seed


def generate(
    policy: Policy, batch: Sequence[Sample], modalities: Sequence[str], group_size: int, max_new_tokens: int,
    sampling: Sampling, seeds: Sequence[int] | None,
) -> Rollout:  # fmt: skip
    """`group_size` answers per clip; the one way answers are generated, in training and in evaluation."""
    model, processor = policy.model, policy.processor
    rows = [features for _, features in batch]
    collated = processor.collate([processor.prompt_of(row, modalities) for row in rows], rows).to(model.device)
    training = model.training
    model.eval()
    with torch.no_grad():
        embeds, mask, _ = model.embed(collated)
        result = rollout(
            model.language_model, embeds, mask, group_size, max_new_tokens, processor.eos_ids, processor.pad_id, sampling,
            seeds,
        )  # fmt: skip
    model.train(training)
    return result


def check_room(policy: Policy, sample: Sample, modalities: Sequence[str], plan: Evaluation) -> None:
    """PromptTooLong when the answers of `plan` do not fit behind the prompt of a clip such as `sample`."""
    model, processor, features = policy.model, policy.processor, sample[1]
    collated = processor.collate([processor.prompt_of(features, modalities)], [features]).to(model.device)
    with torch.no_grad():
        _, mask, _ = model.embed(collated)
    check_positions(model.language_model, mask, plan.longest)


def answers(
    policy: Policy, samples: Sequence[Sample], modalities: Sequence[str], plan: Evaluation, decoding: Decoding,
    taxonomy: Taxonomy, seed: int,
) -> Iterator[list[Prediction]]:  # fmt: skip
    """The policy's answers to `samples`, unread and unjudged, batch by batch.

    What a clip gets depends on (seed, clip) alone, not on the batch or the process it is in.
    """
    count = plan.decodings[decoding]
    sampling = Sampling(plan.temperature, plan.top_p) if decoding == "sampled" else Sampling()
    for start in range(0, len(samples), plan.batch_size):
        batch = samples[start : start + plan.batch_size]
        seeds = [prompt_seed(seed, "evaluation", clip.id) for clip, _ in batch] if decoding == "sampled" else None
        done = generate(policy, batch, modalities, count, plan.longest, sampling, seeds)
        found = []
        for row, (tokens, mask, finished) in enumerate(zip(done.tokens, done.mask, done.finished, strict=True)):
            clip, text = batch[row // count][0], policy.processor.decode(tokens[mask.bool()].tolist())
            length = int(mask.sum())
            found.append(made(clip.id, clip.label, text, taxonomy, decoding, row % count, length, bool(finished)))
        yield found
