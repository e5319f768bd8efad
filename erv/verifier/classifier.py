"""The Emotional Rationale Verifier: a small multi-label classifier that tells which emotions a sentence speaks of."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
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

from erv.emotions import GOEMOTIONS, counterpart
from erv.verifier.tokenizer import train_tokenizer

Head = Literal["taxonomy", "goemotions28"]
CHOSEN = "erv.json"  # beside the weights: threshold, temperature and the figures they come with


class Verifier:
    """Sentences -> probabilities of each emotion, in the order of `labels`.

    Each distinct sentence is scored once, in batches of sentences of about the same number of tokens, and remembered while
    the weights stay as they are (`forget` after changing them). A batch holds at most `batch_tokens` tokens, padding
    included (default: 512 on a CPU, whose caches a larger batch leaves, else 16,384). With `bf16` the matrix products are in
    bfloat16, with `compile` the model is compiled by torch. Logits are divided by `temperature`, 1 for probabilities as
    trained.
    """

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, labels: Sequence[str], batch_tokens: int | None = None,
        remember: int = 200_000, bf16: bool = False, compile: bool = False, temperature: float = 1.0,
    ) -> None:  # fmt: skip
        if (batch_tokens is not None and batch_tokens < 1) or temperature <= 0:
            raise ValueError(
                f"batch_tokens is at least 1 and temperature above 0, got {batch_tokens} and {temperature}"
            )
        self.model, self.tokenizer, self.labels = model, tokenizer, tuple(labels)
        self.batch_tokens, self.remember, self.bf16, self.temperature = batch_tokens, remember, bf16, temperature
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
        tokens = self.tokenizer(new, truncation=True, max_length=self.max_length, split_special_tokens=True)[
            "input_ids"
        ]
        order = sorted(range(len(new)), key=lambda i: len(tokens[i]))
        budget = self.batch_tokens or (512 if self.model.device.type == "cpu" else 16384)
        start = 0
        while start < len(order):
            end = start + 1  # the last of a batch is its longest
            while end < len(order) and len(tokens[order[end]]) * (end + 1 - start) <= budget:
                end += 1
            batch = self.tokenizer.pad({"input_ids": [tokens[i] for i in order[start:end]]}, return_tensors="pt")
            found = self._forward(batch.to(self.model.device)).logits.float().cpu().numpy()
            self._known.update(zip((new[i] for i in order[start:end]), found, strict=True))
            start = end

    def _forward(self, batch: Any, **arguments: Any) -> Any:
        cast = torch.autocast(self.model.device.type, torch.bfloat16) if self.bf16 else nullcontext()
        with cast:
            return self._run(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], **arguments)

    def logits(self, sentences: Sequence[str], embeddings: bool = False) -> tuple[Tensor, Tensor | None]:
        """Logits `[S, E]` and, if asked for, the first token's last hidden state `[S, D]`; with gradient."""
        batch = self.tokenizer(
            list(sentences),
            padding=True,
            truncation=True,
            max_length=self.max_length,
            return_tensors="pt",
            split_special_tokens=True,
        )
        found = self._forward(batch.to(self.model.device), output_hidden_states=embeddings)
        return found.logits, found.hidden_states[-1][:, 0] if embeddings else None

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
        """Write a folder that AutoModelForSequenceClassification and `load_verifier` load."""
        self.model.config.id2label = dict(enumerate(self.labels))
        self.model.config.label2id = {label: i for i, label in enumerate(self.labels)}
        self.model.config.architectures = [type(self.model).__name__]
        self.model.config.save_pretrained(folder)
        # not the model's save_pretrained: it imports deepspeed where that is installed, which warns and takes seconds
        save_model(self.model, str(Path(folder, "model.safetensors")), metadata={"format": "pt"})
        self.tokenizer.save_pretrained(folder)


def build_verifier(
    labels: Sequence[str], checkpoint: str | None = None, config: dict[str, Any] | None = None,
    sentences: Sequence[str] | None = None, head: Head = "taxonomy",
) -> Verifier:  # fmt: skip
    """A verifier to be trained for `labels`.

    From `checkpoint` (hub id or folder of any encoder), or with random weights of the sizes in `config` (`model_type` and
    its arguments) and a byte-level BPE tokenizer trained on `sentences`. `head` "taxonomy" has one output for each label;
    "goemotions28" keeps the 28 outputs of a GoEmotions classifier, of which one stands for each label (paper).
    """
    if head not in ("taxonomy", "goemotions28"):
        raise ValueError(f"verifier.model.head is taxonomy or goemotions28, got {head!r}")
    if head == "goemotions28":
        labels = goemotions_order(checkpoint) if checkpoint is not None else GOEMOTIONS.labels
    settings = {"num_labels": len(labels), "problem_type": "multi_label_classification"}
    if checkpoint is not None:
        tokenizer = AutoTokenizer.from_pretrained(checkpoint, trust_remote_code=False)
        model = AutoModelForSequenceClassification.from_pretrained(
            checkpoint, ignore_mismatched_sizes=True, trust_remote_code=False, **settings
        )
        return Verifier(model, tokenizer, labels)
    if config is None or not sentences:
        raise ValueError("a verifier without verifier.model.checkpoint needs verifier.model.config and sentences")
    tokenizer = train_tokenizer(sentences)
    sizes = {**config, "vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id, **settings}
    model = AutoModelForSequenceClassification.from_config(AutoConfig.for_model(**sizes))
    return Verifier(model, tokenizer, labels)


def load_verifier(
    checkpoint: str, calibrated: bool = False, batch_tokens: int | None = None, bf16: bool = False, compile: bool = False
) -> Verifier:  # fmt: skip
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
