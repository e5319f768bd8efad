"""What a policy family provides: the protocols that generation, GRPO, SFT, evaluation and the clip reader call.

A policy is a model and its processor (`erv.policy.policy.Policy`). Data flows through them like this:

    decoded clip --processor.tensors--> tower inputs --model.encode--> tower features (cached on disk)
    tower features --processor.prompt_of, collate--> PolicyBatch --model.embed--> prompt embeddings
    prompt embeddings --erv.engine, model.language_model--> completions and their log-probs
    completions --processor.decode--> text

To add a family (Qwen2.5-Omni, a text-only decoder, ...):

1. A folder beside `humanomni/` with a model (PolicyModel), a processor (PolicyProcessor), a batch (PolicyBatch), and a module
   `family.py` with the four functions of PolicyFamily.
2. A line in `erv.policy.policy.FAMILIES` for each `model_type` that its config.json files have.
3. conf/policy/NAME.yaml.
4. Tests of the features and logits against the family's own code, and of the gradients by
   `erv.engine.self_check.verify_shared_prefix`. A decoder whose layers `erv.engine.layers` does not support works too, but
   runs the prompt once per completion.

What other families need and these protocols do not have yet:

- Positions: the engine counts them from the attention mask, the same for all axes of rotary embedding. Prompts with positions
  of their own (Qwen2.5-Omni: time, height, width) need a field in `Embedded` and an argument in `erv.engine`.
- Media: `tensors` gets frames and sound, without the clip's duration and frame rate, which Qwen2.5-Omni's positions need.
- Sizes: the memory estimate (`erv.training.memory`, `erv.runtime.memory_check`) and the tower warm-up read HumanOmni's config.

Arguments that are of the family's own types (its prompts, its batches) are typed Any here: nothing else builds or reads them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, Self

import numpy as np
import torch
from torch import Tensor, nn

from erv.types import MediaSpec

Preprocessing = Literal["consistent", "paper"]
"""One way of preprocessing for all stages, or the released code's ways, which differ from stage to stage."""
Stage = Literal["sft", "grpo", "inference"]
PREPROCESSING: tuple[Preprocessing, ...] = ("consistent", "paper")
STAGES: tuple[Stage, ...] = ("sft", "grpo", "inference")
IGNORE_INDEX = -100
"""Label of positions without a loss; the ignore_index of torch's and transformers' cross-entropy."""


class PolicyPrompt(Protocol):
    """The prompt of one clip, before its features are inserted."""

    @property
    def ids(self) -> Sequence[int]:
        """Token ids. Micro-batches are sized by their number plus that of all feature vectors, an upper bound of the positions:
        whether media have one placeholder (HumanOmni) or an id per feature vector (Qwen2.5-Omni) is the family's choice."""


class PolicyBatch(Protocol):
    """Prompts, with targets for SFT, and the features of their clips; made by `PolicyProcessor.collate`."""

    @property
    def input_ids(self) -> Tensor:
        """`[B, L]`, right-padded: SFT weighs the last target tokens of each row by their position."""

    @property
    def attention_mask(self) -> Tensor:
        """`[B, L]` bool, set at real tokens."""

    @property
    def labels(self) -> Tensor | None:
        """`[B, L]`, IGNORE_INDEX but for the targets; None without targets."""

    def to(self, device: Any) -> Self:
        """The batch on another device."""


class Embedded(NamedTuple):
    """Prompts as the language model takes them, media features in the place of their placeholders."""

    embeds: Tensor
    """`[B, P, D]`; gradients flow to the trained parts that made them."""
    mask: Tensor
    """`[B, P]` bool, set at real positions; padding on either side."""
    labels: Tensor | None
    """`[B, P]`, as PolicyBatch.labels with IGNORE_INDEX at media positions; None without targets."""


class PolicyConfig(Protocol):
    """The sizes of a model (`transformers.PretrainedConfig`)."""

    @property
    def model_type(self) -> str:
        """Its key in `erv.policy.policy.FAMILIES`, written to config.json."""

    @property
    def text_config(self) -> Any:
        """The language model's own config; SFT's auxiliary head reads `hidden_size`."""

    @property
    def feature_bytes(self) -> int:
        """Bytes of one clip's tower features in half precision, at most: for the disk check of the feature cache."""


class PolicyModel(Protocol):
    """The model of a policy; an `nn.Module`, whose parts can be trained or frozen one by one.

    It must keep what is frozen in eval mode also under `train()`: dropout in a frozen tower would change its features. It is
    copied by `copy.deepcopy` for the reference (`frozen_copy`).
    """

    trained: tuple[str, ...]
    """Names of the parts that are trained; towers are named "vision_tower" and "audio_tower" (`erv.data`, `erv.distributed`)."""
    training: bool
    """As in nn.Module."""

    @property
    def config(self) -> PolicyConfig:
        """The sizes."""

    @property
    def device(self) -> torch.device:
        """Where prompts go."""

    # generation, GRPO and evaluation

    @property
    def language_model(self) -> Any:
        """The decoder (`transformers.PreTrainedModel`) with input and output embeddings; `erv.engine` runs it.

        SFT also reads its `lm_head`, a Linear. FSDP shards its layers one by one, LoRA adapters go on its linear layers, and the
        names of its weights in the model begin with "language_model.".
        """

    def embed(self, batch: Any, media: Any = None) -> Embedded:
        """Embed the prompts of a batch. ValueError when features and placeholders of a row do not agree.

        A prompt whose clip lacks a modality must contain no placeholder for it, and the reverse: a model that silently ignores
        a clip's sound would be trained on the wrong task. `media`: what `self.media(batch)` returned, to save a second pass.
        """

    def train(self, mode: bool = True) -> Any:
        """Training mode for the trained parts only."""

    def eval(self) -> Any:
        """As in nn.Module."""

    # SFT

    def media(self, batch: Any) -> dict[str, Tensor]:
        """Project the features of a batch to the language model's width: {modality: `[rows with it, tokens, D]`}.

        For SFT's auxiliary emotion head; {} for a text-only family.
        """

    # towers and the clip reader; a text-only family has none

    def encode(self, media: Sequence[Mapping[str, Tensor]], batch_size: int | None = None) -> list[dict[str, Tensor]]:
        """Run the towers on what `PolicyProcessor.tensors` returned for each clip: {modality: features `[..., d]`} per clip.

        Modalities a clip lacks are missing from its dict. With `batch_size` every forward pass sees that many clips, so that a
        clip's features do not depend, to the last bit, on the clips beside it: they are cached.
        """

    def towers(self) -> dict[str, nn.Module]:
        """The towers by the name of their part; their outputs are cached while they are frozen."""

    def tower_state(self) -> dict[str, Tensor]:
        """The weights of the towers under their names in the model; their hash is part of the feature cache's key."""

    # setting up a training, checkpoints, reports

    def set_trainable(self, parts: Sequence[str]) -> Self:
        """Train exactly these parts and freeze the rest; of a language model with adapters (LoRA), the adapters only.

        ValueError that lists the parts for an unknown one.
        """

    def widen_trained(self) -> Self:
        """Convert the trained weights to fp32, whatever the type of the frozen ones."""

    def part_sizes(self) -> dict[str, tuple[int, int]]:
        """(Parameters, trained parameters) of each part."""

    def parameters(self) -> Iterable[nn.Parameter]:
        """As in nn.Module."""

    def state_dict(self) -> dict[str, Tensor]:
        """As in nn.Module."""

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> Any:
        """As in nn.Module."""

    def to(self, *args: Any) -> Any:
        """As in nn.Module."""


class PolicyProcessor(Protocol):
    """From decoded clips to prompts and batches, and from generated tokens to text, as one stage does it."""

    @property
    def eos_ids(self) -> Sequence[int]:
        """Token ids that end a completion."""

    @property
    def pad_id(self) -> int:
        """Token id that fills rows after their end."""

    def at(self, stage: Stage) -> Self:
        """The processor as `stage` uses it; before, it is as inference uses it."""

    # prompts

    def prompt_of(self, features: Mapping[str, Tensor], modalities: Sequence[str]) -> PolicyPrompt:
        """The prompt of a clip with these tower features: with those of `modalities` that it has."""

    def collate(
        self,
        prompts: Sequence[Any],
        features: Sequence[dict[str, Tensor]],
        targets: Sequence[Sequence[int]] | None = None,
    ) -> PolicyBatch:
        """One batch of prompts and the features of their clips, with `targets` (token ids) appended and labelled for SFT."""

    def target_ids(self, text: str) -> list[int]:
        """Token ids of an answer that SFT imitates, with its end token. Control tokens written in the text stay text."""

    def decode(self, ids: Sequence[int]) -> str:
        """Text of generated tokens, without special tokens."""

    # media; `erv.data.clip_reader.Preprocessor` is this part, declared there because that package does not import this one

    @property
    def fills_silence(self) -> bool:
        """Whether a missing sound track is replaced by silence, instead of being left out of the prompt."""

    def media_spec(self, modalities: Sequence[str]) -> MediaSpec:
        """What to decode of a clip: frames, size, seconds of sound."""

    def tensors(self, pictures: np.ndarray | None, wave: np.ndarray | None) -> dict[str, Tensor]:
        """The towers' inputs {"video", "audio"} from a decoded clip, those that it has.

        pictures: `[T, H, W, 3]` uint8; wave: `[S]` fp32, mono, at `erv.types.AUDIO_RATE`. Called in worker processes.
        """

    def identity(self) -> str:
        """Everything that changes what `tensors` returns, as a text: part of the feature cache's key."""


class PolicyFamily(Protocol):
    """The functions of a family's module `family.py`: how its policies are made, read and written."""

    def create(
        self,
        config: Mapping[str, Any],
        texts: Sequence[str],
        question: str | None,
        preprocessing: Preprocessing | None,
        dtype: torch.dtype,
    ) -> tuple[PolicyModel, PolicyProcessor]:
        """A policy with random weights of the sizes `config` (policy.config) and tokenizers trained on `texts`."""

    def load(
        self,
        folder: Path,
        question: str | None,
        preprocessing: Preprocessing | None,
        dtype: torch.dtype,
        upstream: Mapping[str, str],
    ) -> tuple[PolicyModel, PolicyProcessor]:
        """The policy of a checkpoint's folder, written by `save` or public; CheckpointError for one that is not whole."""

    def save(self, model: Any, processor: Any, folder: Path, max_shard_size: str) -> None:
        """Write a folder from which `load` makes the same policy, adapters merged into the weights."""

    def export(self, model: Any, processor: Any, folder: Path, max_shard_size: str) -> None:
        """Write the policy as the family's public code reads it."""
