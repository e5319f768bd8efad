"""The Emotional Rationale Verifier: a small multi-label classifier that tells which emotions a sentence speaks of."""

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
from erv.verifier.pooling import MeanPoolingClassifier, MeanPoolingConfig, trained_with_mean_pooling
from erv.verifier.tokenizer import train_tokenizer

Head = Literal["taxonomy", "goemotions28"]
Pooling = Literal["cls", "mean"]
CHOSEN = "erv.json"  # beside the weights: threshold, temperature and the figures they come with


class Verifier:
    """Sentences -> probabilities of each emotion, in the order of `labels`.

    Each distinct sentence is scored once, in batches of sentences of about the same number of tokens, and remembered while
    the weights stay as they are (`forget` after changing them). A batch holds at most `batch_tokens` tokens, padding
    included (default: 512 on a CPU, whose caches a larger batch leaves, else 16,384). With `bf16` the matrix products are in
    bfloat16, with `compile` the model is compiled by torch. Logits are divided by `temperature`, 1 for probabilities as
    trained. `base_model` is the hub id or the folder's name that training began with.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerFast,
        labels: Sequence[str],
        batch_tokens: int | None = None,
        remember: int = 200_000,
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
        self.batch_tokens, self.remember, self.bf16, self.temperature = batch_tokens, remember, bf16, temperature
        self.base_model = base_model
        self._run: Any = torch.compile(model, dynamic=True) if compile else model
        self._known: dict[str, np.ndarray] = {}

    def __call__(self, sentences: Sequence[str]) -> np.ndarray:
        """Probabilities float32 `[S, E]` of `sentences`."""
        return (torch.from_numpy(self.scored(sentences)) / self.temperature).sigmoid().numpy()

    def scored(self, sentences: Sequence[str]) -> np.ndarray:
        """Logits float32 `[S, E]` of `sentences`, without gradient."""
        new = list(dict.fromkeys(s for s in sentences if s not in self._known))
        if len(self._known) + len(new) > self.remember:
            self._known.clear()
            new = list(dict.fromkeys(sentences))
        if new:
            training = self.model.training
            self.model.eval()
            with torch.inference_mode():
                self._score(new)
            self.model.train(training)
        return (
            np.stack([self._known[s] for s in sentences])
            if len(sentences)
            else np.zeros((0, len(self.labels)), np.float32)
        )

    def _score(self, new: list[str]) -> None:
        tokens = self._tokens(new)
        for part in self._batches(tokens):
            logits = self._forward(self._padded([tokens[i] for i in part])).logits.float().cpu().numpy()
            self._known.update(zip((new[i] for i in part), logits, strict=True))

    def _tokens(self, sentences: list[str]) -> list[list[int]]:
        encoded = self.tokenizer(sentences, truncation=True, max_length=self.max_length, split_special_tokens=True)
        return encoded["input_ids"]

    def _batches(self, tokens: Sequence[Sequence[int]]) -> Iterator[list[int]]:
        """Indices of sentences, shortest first, in batches of at most `batch_tokens` tokens with padding."""
        order = sorted(range(len(tokens)), key=lambda i: len(tokens[i]))
        budget = self.batch_tokens or (512 if self.model.device.type == "cpu" else 16384)
        start = 0
        while start < len(order):
            end = start + 1  # the last of a batch is its longest
            while end < len(order) and len(tokens[order[end]]) * (end + 1 - start) <= budget:
                end += 1
            yield order[start:end]
            start = end

    def _padded(self, tokens: list[list[int]]) -> Any:
        return self.tokenizer.pad({"input_ids": tokens}, return_tensors="pt").to(self.model.device)

    def _forward(self, batch: Any, **arguments: Any) -> Any:
        cast = torch.autocast(self.model.device.type, torch.bfloat16) if self.bf16 else nullcontext()
        with cast:
            return self._run(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], **arguments)

    def logits(self, sentences: Sequence[str], embeddings: bool = False) -> tuple[Tensor, Tensor | None]:
        """Logits `[S, E]` and, if asked for, the embeddings `[S, D]` that the head reads; with gradient.

        The embedding is the last hidden state of the first token, or the mean over the tokens (`pooling: mean`). Sentences
        that exceed the token budget together go through the model in batches of similar length, since the padding of all to
        the longest costs more than the further passes.
        """
        tokens = self._tokens(list(sentences))
        parts = list(self._batches(tokens))
        if len(parts) == 1:
            parts = [list(range(len(tokens)))]
        outputs = [
            self._forward(self._padded([tokens[i] for i in part]), output_hidden_states=embeddings) for part in parts
        ]
        place = torch.tensor([i for part in parts for i in part], device=self.model.device).argsort()
        logits = torch.cat([output.logits for output in outputs])[place]
        return logits, torch.cat([self._embeddings(output) for output in outputs])[place] if embeddings else None

    def _embeddings(self, output: Any) -> Tensor:
        return output.hidden_states[-1][:, 0] if self.stock else output.pooler_output

    @property
    def stock(self) -> bool:
        """Whether the model is of a class of transformers, which loads it without erv."""
        return not isinstance(self.model, MeanPoolingClassifier)

    def targets(self, label_lists: Sequence[Sequence[str]]) -> Tensor:
        """Multi-hot `[S, E]` of labels, or of what the verifier calls them; ValueError for a label without counterpart."""
        known = {label: counterpart(label, self.labels) for labels in label_lists for label in labels}
        rows = [{known[label] for label in labels} for labels in label_lists]
        return torch.tensor([[float(label in row) for label in self.labels] for row in rows])

    def columns(self, labels: Sequence[str]) -> dict[str, int]:
        """The column that stands for each of `labels`."""
        return {label: self.labels.index(counterpart(label, self.labels)) for label in labels}

    def forget(self) -> None:
        """Drop remembered logits; needed after the weights have changed."""
        self._known.clear()

    def memory(self) -> dict[str, Any]:
        """The remembered sentences in their order, and their logits `[S, E]`."""
        logits = torch.from_numpy(np.stack(list(self._known.values()))) if self._known else None
        return {"sentences": list(self._known), "logits": logits}

    def recall(self, memory: Mapping[str, Any]) -> None:
        """Remember what `memory` gave."""
        if memory["logits"] is not None:
            self._known.update(zip(memory["sentences"], memory["logits"].numpy().copy(), strict=True))

    @property
    def max_length(self) -> int:
        """The longest sentence in tokens; RoBERTa numbers its positions from 2."""
        return int(self.model.config.max_position_embeddings) - 2

    def save(self, folder: str | Path) -> None:
        """Write a folder that `load_verifier` loads, and transformers' AutoModelForSequenceClassification too.

        With mean pooling, for which transformers has no class, that one loads it only where erv.verifier is imported, and
        raises an error elsewhere.
        """
        self.model.config.id2label = dict(enumerate(self.labels))
        self.model.config.label2id = {label: i for i, label in enumerate(self.labels)}
        self.model.config.architectures = [type(self.model).__name__]
        self.model.config.save_pretrained(folder)
        # not the model's save_pretrained: it imports deepspeed where that is installed, which warns and takes seconds
        save_model(self.model, str(Path(folder, "model.safetensors")), metadata={"format": "pt"})
        self.tokenizer.save_pretrained(folder)


def build_verifier(
    labels: Sequence[str],
    checkpoint: str | None = None,
    config: dict[str, Any] | None = None,
    sentences: Sequence[str] | None = None,
    head: Head = "taxonomy",
    pooling: Pooling | None = None,
) -> Verifier:
    """A verifier to be trained for `labels`.

    From `checkpoint` (hub id or folder of any encoder), or with random weights of the sizes in `config` (`model_type` and
    its arguments) and a byte-level BPE tokenizer trained on `sentences`. `head` "taxonomy" has one output for each label;
    "goemotions28" keeps the 28 outputs of a GoEmotions classifier, of which one stands for each label (paper).

    `pooling` is what the head reads: "cls" the first token through transformers' own head, "mean" the mean over the tokens.
    None takes what the encoder was trained with: the mean where sentence-transformers' config in the checkpoint says so.
    """
    if head not in ("taxonomy", "goemotions28"):
        raise ValueError(f"verifier.model.head is taxonomy or goemotions28, got {head!r}")
    if pooling not in (None, "cls", "mean"):
        raise ValueError(f"verifier.model.pooling is cls, mean or null, got {pooling!r}")
    if head == "goemotions28":
        labels = goemotions_order(checkpoint) if checkpoint is not None else GOEMOTIONS.labels
    settings = {"num_labels": len(labels), "problem_type": "multi_label_classification"}
    if checkpoint is not None:
        tokenizer = AutoTokenizer.from_pretrained(checkpoint, trust_remote_code=False)
        # a folder's path says nothing on another machine
        base_model = Path(checkpoint).resolve().name if Path(checkpoint).exists() else checkpoint
        return Verifier(_pretrained(checkpoint, head, pooling, settings), tokenizer, labels, base_model=base_model)
    if config is None or not sentences:
        raise ValueError("a verifier without verifier.model.checkpoint needs verifier.model.config and sentences")
    tokenizer = train_tokenizer(sentences)
    sizes = {**config, "vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}
    if pooling == "mean":
        encoder = AutoConfig.for_model(**sizes)
        return Verifier(MeanPoolingClassifier(MeanPoolingConfig(encoder, **settings)), tokenizer, labels)
    model = AutoModelForSequenceClassification.from_config(AutoConfig.for_model(**sizes, **settings))
    return Verifier(model, tokenizer, labels)


def _pretrained(checkpoint: str, head: Head, pooling: Pooling | None, settings: dict[str, Any]) -> PreTrainedModel:
    """The classifier on the encoder of `checkpoint`; a head of the same shape is kept where the pooling is the same."""
    pooled = isinstance(AutoConfig.from_pretrained(checkpoint, trust_remote_code=False), MeanPoolingConfig)
    if pooled and pooling == "cls":
        raise ValueError(
            f"verifier.model.pooling=cls needs an encoder or classifier of transformers, and {checkpoint} is a verifier with "
            "mean pooling; set verifier.model.pooling=null or mean"
        )
    if head == "goemotions28" and pooling == "mean" and not pooled:
        raise ValueError(
            f"verifier.model.head=goemotions28 keeps the head of {checkpoint}, which reads the first token, and "
            "verifier.model.pooling=mean needs another; set verifier.model.pooling=null or verifier.model.head=taxonomy"
        )
    if (
        not pooled
        and head == "taxonomy"
        and (pooling == "mean" or (not pooling and trained_with_mean_pooling(checkpoint)))
    ):
        return MeanPoolingClassifier.on_encoder(checkpoint, **settings)
    return AutoModelForSequenceClassification.from_pretrained(
        checkpoint, ignore_mismatched_sizes=True, trust_remote_code=False, **settings
    )


def load_verifier(
    checkpoint: str,
    calibrated: bool = False,
    batch_tokens: int | None = None,
    bf16: bool = False,
    compile: bool = False,
) -> Verifier:
    """A trained verifier from a folder written by `Verifier.save` or from a hub id; its labels are in its config.

    `calibrated` divides logits by the temperature that its training chose. A classifier of 28 unnamed classes is taken for
    one of GoEmotions in its usual order.
    """
    model = AutoModelForSequenceClassification.from_pretrained(checkpoint, trust_remote_code=False)
    labels = named_labels(model.config)
    file = Path(checkpoint) / CHOSEN
    if calibrated and not file.is_file():
        raise ValueError(
            f"verifier.model.calibrated=true needs a temperature, and {checkpoint} has no {CHOSEN}; use a verifier of erv.train"
        )
    temperature = json.loads(file.read_text())["temperature"] if calibrated else 1.0
    tokenizer = AutoTokenizer.from_pretrained(checkpoint, trust_remote_code=False)
    return Verifier(model, tokenizer, labels, batch_tokens, bf16=bf16, compile=compile, temperature=temperature)


def named_labels(config: Any) -> tuple[str, ...]:
    """The labels of a classifier's config."""
    labels = tuple(config.id2label[i] for i in range(config.num_labels))
    unnamed = all(label == f"LABEL_{i}" for i, label in enumerate(labels))
    return GOEMOTIONS.labels if unnamed and len(labels) == len(GOEMOTIONS.labels) else labels


def goemotions_order(checkpoint: str) -> tuple[str, ...]:
    """The 28 classes in the order of the checkpoint's outputs; ValueError when it is no GoEmotions classifier."""
    labels = named_labels(AutoConfig.from_pretrained(checkpoint, trust_remote_code=False))
    if sorted(labels) != sorted(GOEMOTIONS.labels):
        raise ValueError(
            f"verifier.model.head=goemotions28 starts from a classifier of the 28 GoEmotions classes; {checkpoint} has "
            f"{len(labels)}: {', '.join(labels[:5])}…; set verifier.model.head=taxonomy for a head of its own"
        )
    return labels


def export(verifier: Verifier, folder: Path, chosen: Mapping[str, Any], card: str) -> None:
    """Write weights, tokenizer, label names, the chosen threshold and temperature, and the model card.

    `Verifier.save` says what loads it; what was chosen is in its `config.erv` too.
    """
    verifier.model.config.erv = dict(chosen)
    verifier.save(folder)
    (folder / CHOSEN).write_text(json.dumps(chosen, indent=1) + "\n")
    (folder / "README.md").write_text(card)
