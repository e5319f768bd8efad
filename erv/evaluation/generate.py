"""Sample completions of a policy: the one way it is done, in training, in evaluation and for a single clip."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from erv.data.clip_reader import Sample
from erv.engine.generate import Rollout, check_positions, rollout
from erv.engine.sampling import Sampling
from erv.evaluation.predictions import make_prediction
from erv.evaluation.settings import EvaluationSettings
from erv.policy.policy import Policy
from erv.taxonomy import Taxonomy
from erv.types import Decoding, Prediction
from erv.utils.seeding import prompt_seed


def generate(
    policy: Policy,
    batch: Sequence[Sample],
    modalities: Sequence[str],
    group_size: int,
    max_new_tokens: int,
    sampling: Sampling,
    seeds: Sequence[int] | None,
) -> Rollout:
    """Sample `group_size` completions per clip; rows of a clip are next to each other."""
    model, processor = policy.model, policy.processor
    rows = [features for _, features in batch]
    collated = processor.collate([processor.prompt_of(row, modalities) for row in rows], rows).to(model.device)
    training = model.training
    model.eval()  # no dropout: completions come from the policy whose log-probabilities are compared
    with torch.no_grad():
        embeds, mask, _ = model.embed(collated)
        result = rollout(
            model.language_model,
            embeds,
            mask,
            group_size,
            max_new_tokens,
            processor.eos_ids,
            processor.pad_id,
            sampling,
            seeds,
        )
    model.train(training)
    return result


def check_prompt_fits(
    policy: Policy,
    sample: Sample,
    modalities: Sequence[str],
    settings: EvaluationSettings,
) -> None:
    """Raise PromptTooLong when the prompt of a clip such as `sample` and its answer exceed the model's positions."""
    model, processor, features = policy.model, policy.processor, sample[1]
    collated = processor.collate([processor.prompt_of(features, modalities)], [features]).to(model.device)
    with torch.no_grad():
        _, mask, _ = model.embed(collated)
    check_positions(model.language_model, mask, settings.max_answer_tokens)


def generate_predictions(
    policy: Policy,
    samples: Sequence[Sample],
    modalities: Sequence[str],
    settings: EvaluationSettings,
    decoding: Decoding,
    taxonomy: Taxonomy,
    seed: int,
) -> Iterator[list[Prediction]]:
    """Generate the policy's answers to `samples` batch by batch, without rewards and verdicts.

    What a clip gets depends on (seed, clip) alone, not on the batch or the process it is in.
    """
    count = settings.decodings[decoding]
    sampling = Sampling(settings.temperature, settings.top_p) if decoding == "sampled" else Sampling()
    for start in range(0, len(samples), settings.batch_size):
        batch = samples[start : start + settings.batch_size]
        seeds = [prompt_seed(seed, "evaluation", clip.id) for clip, _ in batch] if decoding == "sampled" else None
        completions = generate(policy, batch, modalities, count, settings.max_answer_tokens, sampling, seeds)
        predictions = []
        rows = zip(completions.tokens, completions.mask, completions.finished, strict=True)
        for row, (tokens, mask, finished) in enumerate(rows):
            clip = batch[row // count][0]
            predictions.append(
                make_prediction(
                    clip.id,
                    clip.label,
                    policy.processor.decode(tokens[mask.bool()].tolist()),
                    taxonomy,
                    decoding,
                    sample=row % count,
                    tokens=int(mask.sum()),
                    finished=bool(finished),
                )
            )
        yield predictions
