"""The Emotional Rationale Verifier: a multi-label text classifier of the emotions that a sentence expresses (paper, ERV).

Verifier           the classifier: sentences -> probabilities, logits, embeddings, with length batching and a cache
build_verifier     a verifier to be trained, from an encoder, from a classifier or from random weights
load_verifier      a trained verifier, from a folder or the hub
Verifier.save      weights, tokenizer and label names, in the file layout of transformers
export_verifier    the same with calibration (erv.json) and model card (README.md), as training ends
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors.torch import save_model
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from erv.taxonomy import GOEMOTIONS, counterpart
from erv.utils.io import replacing
from erv.verifier.pooling import MeanPoolingClassifier, MeanPoolingConfig, Pooling, sentence_pooling
from erv.verifier.tokenizer import train_tokenizer

Head = Literal["taxonomy", "goemotions28"]
CALIBRATION_FILE = "erv.json"  # beside the weights: threshold, temperature and the scores measured with them


class Verifier:
    """A multi-label classifier that maps sentences to a probability of each emotion.

    Calling it and `predict_logits` are inference: each distinct sentence is scored once, in batches of sentences of similar
    length, and its logits are cached until `clear_cache`, which must be called after the weights have changed. `logits` is
    the forward pass of training.

    Args:
        model: Sequence classifier with one output per label.
        tokenizer: Tokenizer of `model`.
        labels: Emotion of each output, in order; E of them.
        batch_tokens: Most tokens in a batch, padding included. None: 512 on a CPU, where larger batches no longer fit the
            processor's caches, and 16,384 elsewhere.
        cache_size: Number of sentences after which the cache of logits is emptied.
        bf16: Compute matrix products in bfloat16 (autocast).
        compile: Compile the model with torch.compile.
        temperature: Divisor of the logits in probabilities; 1 gives them as trained.
        base_model: Hub id, or folder name, of the model that training started from; None for random weights.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerFast,
        labels: Sequence[str],
        batch_tokens: int | None = None,
        cache_size: int = 200_000,
        bf16: bool = False,
        compile: bool = False,
        temperature: float = 1.0,
        base_model: str | None = None,
    ) -> None:
        if (batch_tokens is not None and batch_tokens < 1) or temperature <= 0:
            raise ValueError(
                f"batch_tokens is at least 1 and temperature above 0, got {batch_tokens} and {temperature}"
            )
        self.model, self.tokenizer, self.labels = model, tokenizer, tuple(labels)
        self.batch_tokens, self.cache_size, self.bf16, self.temperature = batch_tokens, cache_size, bf16, temperature
        self.base_model = base_model
        # dynamic shapes: batches differ in size and length, and a compilation for each shape would take minutes
        self._forward_fn: Any = torch.compile(model, dynamic=True) if compile else model
        self._cache: dict[str, np.ndarray] = {}  # sentence -> logits [E]

    def __call__(self, sentences: Sequence[str]) -> np.ndarray:
        """Compute the probabilities float32 `[S, E]` of `sentences`, without gradient."""
        return (torch.from_numpy(self.predict_logits(sentences)) / self.temperature).sigmoid().numpy()

    def predict_logits(self, sentences: Sequence[str]) -> np.ndarray:
        """Compute the logits float32 `[S, E]` of `sentences` without gradient, reading from the cache where possible."""
        new = list(dict.fromkeys(s for s in sentences if s not in self._cache))
        if len(self._cache) + len(new) > self.cache_size:
            self._cache.clear()
            new = list(dict.fromkeys(sentences))
        if new:
            training = self.model.training
            self.model.eval()  # no dropout: a cached result must be the sentence's only one
            with torch.inference_mode():
                tokens = self._tokenize(new)
                for batch in self._batches(tokens):
                    logits = self._forward(self._pad([tokens[i] for i in batch])).logits.float().cpu().numpy()
                    self._cache.update(zip((new[i] for i in batch), logits, strict=True))
            self.model.train(training)
        if not len(sentences):
            return np.zeros((0, len(self.labels)), np.float32)
        return np.stack([self._cache[s] for s in sentences])

    def logits(self, sentences: Sequence[str], embeddings: bool = False) -> tuple[Tensor, Tensor | None]:
        """Compute logits `[S, E]` and, if asked for, the embeddings `[S, D]` that the head reads, with gradient.

        The embedding is the last hidden state of the first token, or with mean pooling the mean over the tokens. Sentences
        that together exceed the token budget go through the model in batches of similar length: padding all of them to the
        longest would cost more than the additional forward passes.
        """
        tokens = self._tokenize(list(sentences))
        batches = list(self._batches(tokens))
        if len(batches) == 1:
            batches = [list(range(len(tokens)))]  # the given order: bit for bit the result of one plain forward pass
        outputs = [
            self._forward(self._pad([tokens[i] for i in batch]), output_hidden_states=embeddings) for batch in batches
        ]
        # batches are sorted by length; the inverse permutation restores the order of `sentences`
        order = torch.tensor([i for batch in batches for i in batch], device=self.model.device).argsort()
        logits = torch.cat([output.logits for output in outputs])[order]
        return logits, torch.cat([self._embeddings(output) for output in outputs])[order] if embeddings else None

    def _tokenize(self, sentences: list[str]) -> list[list[int]]:
        # split_special_tokens: "</s>" in a sentence is text, not the end of the sequence
        encoded = self.tokenizer(sentences, truncation=True, max_length=self.max_length, split_special_tokens=True)
        return encoded["input_ids"]

    def _batches(self, tokens: Sequence[Sequence[int]]) -> Iterator[list[int]]:
        """Yield the indices of sentences, shortest first, in batches of at most `batch_tokens` tokens with padding."""
        order = sorted(range(len(tokens)), key=lambda i: len(tokens[i]))
        budget = self.batch_tokens or (512 if self.model.device.type == "cpu" else 16384)
        start = 0
        while start < len(order):
            end = start + 1  # at least one sentence, even above the budget; the last of a batch is its longest
            while end < len(order) and len(tokens[order[end]]) * (end + 1 - start) <= budget:
                end += 1
            yield order[start:end]
            start = end

    def _pad(self, tokens: list[list[int]]) -> Any:
        return self.tokenizer.pad({"input_ids": tokens}, return_tensors="pt").to(self.model.device)

    def _forward(self, batch: Any, **arguments: Any) -> Any:
        precision = torch.autocast(self.model.device.type, torch.bfloat16) if self.bf16 else nullcontext()
        with precision:
            return self._forward_fn(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], **arguments)

    def _embeddings(self, output: Any) -> Tensor:
        return output.hidden_states[-1][:, 0] if self.loads_without_erv else output.pooler_output

    @property
    def loads_without_erv(self) -> bool:
        """Whether the model's class is one of transformers, so that its folder can be loaded without erv."""
        return not isinstance(self.model, MeanPoolingClassifier)

    @property
    def max_length(self) -> int:
        """Longest sentence in tokens: two fewer than the encoder has positions, since RoBERTa numbers them from 2."""
        return int(self.model.config.max_position_embeddings) - 2

    def targets(self, label_lists: Sequence[Sequence[str]]) -> Tensor:
        """Encode the labels of S sentences as multi-hot float `[S, E]`.

        A label may be one of the verifier's or a word for the same emotion (`erv.taxonomy.counterpart`). Raises ValueError
        for a label that no output stands for.
        """
        outputs = {label: counterpart(label, self.labels) for labels in label_lists for label in labels}
        rows = [{outputs[label] for label in labels} for labels in label_lists]
        return torch.tensor([[float(label in row) for label in self.labels] for row in rows])

    def columns(self, labels: Sequence[str]) -> dict[str, int]:
        """Map each of `labels` to the output that stands for it; ValueError for a label without one."""
        return {label: self.labels.index(counterpart(label, self.labels)) for label in labels}

    def clear_cache(self) -> None:
        """Drop the cached logits; needed after the weights have changed."""
        self._cache.clear()

    def cache_state(self) -> dict[str, Any]:
        """The cached sentences in insertion order and their logits `[S, E]`, for a checkpoint."""
        logits = torch.from_numpy(np.stack(list(self._cache.values()))) if self._cache else None
        return {"sentences": list(self._cache), "logits": logits}

    def load_cache_state(self, state: Mapping[str, Any]) -> None:
        """Add the sentences and logits of a `cache_state` to the cache."""
        if state["logits"] is not None:
            self._cache.update(zip(state["sentences"], state["logits"].numpy().copy(), strict=True))

    def save(self, folder: str | Path) -> None:
        """Write weights, tokenizer and label names to a folder for `load_verifier`.

        AutoModelForSequenceClassification of transformers loads it too. With mean pooling, for which transformers has no
        class, it does so only where erv.verifier is imported, and raises an error elsewhere.
        """
        self.model.config.id2label = dict(enumerate(self.labels))
        self.model.config.label2id = {label: i for i, label in enumerate(self.labels)}
        self.model.config.architectures = [type(self.model).__name__]
        self.model.config.save_pretrained(folder)
        # not model.save_pretrained: it imports deepspeed where that is installed, which warns and takes seconds
        with replacing(Path(folder, "model.safetensors")) as temporary:
            save_model(self.model, str(temporary), metadata={"format": "pt"})
        self.tokenizer.save_pretrained(folder)


def export_verifier(verifier: Verifier, folder: Path, calibration: Mapping[str, Any], model_card: str) -> None:
    """Write a trained verifier with its calibration and model card.

    The calibration (threshold, temperature and the scores measured with them) goes to erv.json and, so that it reaches
    whoever loads the folder with transformers, to `config.erv` as well.
    """
    verifier.model.config.erv = dict(calibration)
    verifier.save(folder)
    (folder / CALIBRATION_FILE).write_text(json.dumps(calibration, indent=1) + "\n")
    (folder / "README.md").write_text(model_card)


def load_verifier(
    checkpoint: str,
    calibrated: bool = False,
    batch_tokens: int | None = None,
    bf16: bool = False,
    compile: bool = False,
) -> Verifier:
    """Load a trained verifier; its labels are read from its config.

    Args:
        checkpoint: Folder written by `Verifier.save`, or the hub id of a text classifier. A classifier of 28 unnamed classes
            is taken for one of GoEmotions in their usual order.
        calibrated: Divide logits by the temperature that training chose (erv.json).
        batch_tokens: See `Verifier`.
        bf16: See `Verifier`.
        compile: See `Verifier`.
    """
    model = AutoModelForSequenceClassification.from_pretrained(checkpoint, trust_remote_code=False)
    labels = _label_names(model.config)
    file = Path(checkpoint) / CALIBRATION_FILE
    if calibrated and not file.is_file():
        raise ValueError(
            f"verifier.model.calibrated=true needs a temperature, and {checkpoint} has no {CALIBRATION_FILE}; use a verifier of "
            "erv.train"
        )
    temperature = json.loads(file.read_text())["temperature"] if calibrated else 1.0
    tokenizer = AutoTokenizer.from_pretrained(checkpoint, trust_remote_code=False)
    return Verifier(model, tokenizer, labels, batch_tokens, bf16=bf16, compile=compile, temperature=temperature)


def build_verifier(
    labels: Sequence[str],
    checkpoint: str | None = None,
    config: dict[str, Any] | None = None,
    sentences: Sequence[str] | None = None,
    head: Head = "taxonomy",
    pooling: Pooling | None = None,
) -> Verifier:
    """Make a verifier to be trained for `labels`.

    Args:
        labels: Labels of the taxonomy.
        checkpoint: Hub id or folder of any encoder; None for random weights.
        config: Without checkpoint, the encoder's `model_type` and sizes.
        sentences: Without checkpoint, the text that a byte-level BPE tokenizer is trained on.
        head: "taxonomy" has one output per label; "goemotions28" keeps the 28 outputs of a GoEmotions classifier, of which
            one stands for each label (paper).
        pooling: What the head reads: "cls" the first token, through the head of transformers; "mean" the mean over the
            tokens; None as the encoder was trained, according to sentence-transformers' config in the checkpoint, and the
            first token where it has none.

    Raises:
        ValueError: For settings that do not fit each other or the checkpoint.
    """
    if head not in ("taxonomy", "goemotions28"):
        raise ValueError(f"verifier.model.head is taxonomy or goemotions28, got {head!r}")
    if pooling not in (None, "cls", "mean"):
        raise ValueError(f"verifier.model.pooling is cls, mean or null, got {pooling!r}")
    if head == "goemotions28":
        labels = _goemotions_labels(checkpoint) if checkpoint is not None else GOEMOTIONS.labels
    task = {"num_labels": len(labels), "problem_type": "multi_label_classification"}
    if checkpoint is not None:
        tokenizer = AutoTokenizer.from_pretrained(checkpoint, trust_remote_code=False)
        # only the name of a local folder: its path means nothing on another machine
        base_model = Path(checkpoint).resolve().name if Path(checkpoint).exists() else checkpoint
        return Verifier(_pretrained_model(checkpoint, head, pooling, task), tokenizer, labels, base_model=base_model)
    if config is None or not sentences:
        raise ValueError("a verifier without verifier.model.checkpoint needs verifier.model.config and sentences")
    tokenizer = train_tokenizer(sentences)
    sizes = {**config, "vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}
    if pooling == "mean":
        encoder = AutoConfig.for_model(**sizes)
        return Verifier(MeanPoolingClassifier(MeanPoolingConfig(encoder, **task)), tokenizer, labels)
    model = AutoModelForSequenceClassification.from_config(AutoConfig.for_model(**sizes, **task))
    return Verifier(model, tokenizer, labels)


def _pretrained_model(checkpoint: str, head: Head, pooling: Pooling | None, task: dict[str, Any]) -> PreTrainedModel:
    """Load the encoder of `checkpoint` with a head; its head is kept if it has the same shape and pooling."""
    is_mean_pooled = isinstance(AutoConfig.from_pretrained(checkpoint, trust_remote_code=False), MeanPoolingConfig)
    if is_mean_pooled and pooling == "cls":
        raise ValueError(
            f"verifier.model.pooling=cls needs an encoder or classifier of transformers, and {checkpoint} is a verifier with "
            "mean pooling; set verifier.model.pooling=null or mean"
        )
    if head == "goemotions28" and pooling == "mean" and not is_mean_pooled:
        raise ValueError(
            f"verifier.model.head=goemotions28 keeps the head of {checkpoint}, which reads the first token, and "
            "verifier.model.pooling=mean needs another; set verifier.model.pooling=null or verifier.model.head=taxonomy"
        )
    if not is_mean_pooled and head == "taxonomy" and (pooling or sentence_pooling(checkpoint)) == "mean":
        return MeanPoolingClassifier.on_encoder(checkpoint, **task)
    return AutoModelForSequenceClassification.from_pretrained(
        checkpoint, ignore_mismatched_sizes=True, trust_remote_code=False, **task
    )


def _label_names(config: Any) -> tuple[str, ...]:
    """The labels in a classifier's config, or GoEmotions' for 28 unnamed ones."""
    labels = tuple(config.id2label[i] for i in range(config.num_labels))
    unnamed = all(label == f"LABEL_{i}" for i, label in enumerate(labels))
    return GOEMOTIONS.labels if unnamed and len(labels) == len(GOEMOTIONS.labels) else labels


def _goemotions_labels(checkpoint: str) -> tuple[str, ...]:
    """The 28 classes in the order of the checkpoint's outputs; ValueError if it is not a GoEmotions classifier."""
    labels = _label_names(AutoConfig.from_pretrained(checkpoint, trust_remote_code=False))
    if sorted(labels) != sorted(GOEMOTIONS.labels):
        raise ValueError(
            f"verifier.model.head=goemotions28 starts from a classifier of the 28 GoEmotions classes; {checkpoint} has "
            f"{len(labels)}: {', '.join(labels[:5])}…; set verifier.model.head=taxonomy for a head of its own"
        )
    return labels
