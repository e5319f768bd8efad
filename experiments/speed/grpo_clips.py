"""The work on clips: the tiny HumanOmni with random weights and clips of the embedded corpus."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from erv.data.clip_reader import ClipReader
from erv.data.datasets.synthetic import SyntheticCorpus
from erv.data.media.container import Limits
from erv.data.media.decode import decode
from erv.data.media.settings import MediaSettings
from erv.policy import Policy, load_policy
from erv.rationale import compose
from erv.types import Clip, RewardParts

MODALITIES = ("video", "audio")
TINY = Path(__file__).parents[2] / "conf" / "policy" / "tiny.yaml"
NEVER = 10**6  # an end token that no model can sample
Media = list[dict[str, Tensor]]


def load(clips: int) -> tuple[Policy, list[tuple[Clip, dict[str, Tensor]]], Media]:
    """The policy, its samples with features from the tower cache, and the decoded clips."""
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        corpus = SyntheticCorpus(f"{folder}/clips", seed=0, clips=max(48, clips), dev=8, test=8, workers=1)
        corpus.prepare()
        chosen = corpus.clips("train")[:clips]
        settings = yaml.safe_load(TINY.read_text())
        policy = load_policy(
            config=settings["config"], question=settings["question"],
            texts=[compose(c.rationale, c.label) for c in corpus.clips("train")],
        )  # fmt: skip
        policy.processor.eos_ids[:] = [NEVER]
        samples = ClipReader(MediaSettings(cache=f"{folder}/cache"), policy).samples(chosen)
        return policy, samples[:], [_media(policy, clip) for clip in chosen]


def _media(policy: Policy, clip: Clip) -> dict[str, Tensor]:
    decoded = decode(clip.video, clip.audio, policy.processor.media_spec(), Limits())
    return policy.processor.tensors(decoded.frames, decoded.waveform)


def encoder(policy: Policy, media: Media) -> Callable[[Any, int], Tensor]:
    """(model, clip) -> prompt embeddings `[1, P, D]`: towers, projectors and gate run anew at each call."""
    processor = policy.processor
    prompt = processor.prompt(MODALITIES)

    def encode(model: Any, index: int) -> Tensor:
        features = {"video": model.encode_video(media[index]["video"][None])[0],
                    "audio": model.encode_audio(media[index]["audio"][None])[0]}  # fmt: skip
        return model.embed(processor.collate([prompt], [features]))[0]

    return encode


class LengthReward:
    """The length of the text: random weights say nothing worth more, and a verifier's time is not what is measured."""

    weights = {"length": 1.0}  # noqa: RUF012

    def __call__(self, texts: Sequence[str], golds: Sequence[str], *_: Any) -> list[RewardParts]:
        """One reward per text."""
        return [RewardParts(float(len(t)), {"length": float(len(t))}) for t in texts]
