"""The Emotional Rationale Verifier: a small multi-label classifier that tells which emotions a sentence speaks of."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import ByteLevelBPETokenizer
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

_SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]


class Verifier:
    """Sentences -> probabilities of each emotion, in the order of `labels`.

    Each distinct sentence is scored once per call, in batches of similar length, and remembered while the weights stay as
    they are (`forget` after changing them).
    """

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, labels: Sequence[str], batch_size: int = 256,
        remember: int = 200_000,
    ) -> None:  # fmt: skip
        self.model, self.tokenizer, self.labels = model, tokenizer, tuple(labels)
        self.batch_size, self.remember = batch_size, remember
        self._known: dict[str, np.ndarray] = {}

    def __call__(self, sentences: Sequence[str]) -> np.ndarray:
        """Probabilities float32 `[S, E]` of `sentences`."""
        new = sorted(dict.fromkeys(s for s in sentences if s not in self._known), key=len)
        if len(self._known) + len(new) > self.remember:
            self._known.clear()
            new = sorted(dict.fromkeys(sentences), key=len)
        training = self.model.training
        self.model.eval()
        with torch.inference_mode():
            for start in range(0, len(new), self.batch_size):
                batch = new[start : start + self.batch_size]
                self._known.update(zip(batch, self.logits(batch).sigmoid().float().cpu().numpy(), strict=True))
        self.model.train(training)
        return np.stack([self._known[s] for s in sentences]) if len(sentences) else np.zeros((0, len(self.labels)))

    def logits(self, sentences: Sequence[str]) -> Tensor:
        """Logits `[S, E]`, with gradient unless it is switched off."""
        batch = self.tokenizer(
            list(sentences), padding=True, truncation=True, max_length=self.max_length, return_tensors="pt"
        )
        return self.model(**batch.to(self.model.device)).logits

    def loss(self, sentences: Sequence[str], targets: Tensor) -> Tensor:
        """Binary cross-entropy of multi-hot `targets` `[S, E]`, mean over all entries."""
        return torch.nn.functional.binary_cross_entropy_with_logits(
            self.logits(sentences), targets.to(self.model.device)
        )

    def targets(self, label_lists: Sequence[Sequence[str]]) -> Tensor:
        """Multi-hot `[S, E]`; ValueError for a label that the verifier does not know."""
        unknown = sorted({label for labels in label_lists for label in labels} - set(self.labels))
        if unknown:
            raise ValueError(f"labels {', '.join(unknown)} are not among the verifier's: {', '.join(self.labels)}")
        return torch.tensor([[float(label in labels) for label in self.labels] for labels in label_lists])

    def forget(self) -> None:
        """Drop remembered probabilities; needed after the weights have changed."""
        self._known.clear()

    @property
    def max_length(self) -> int:
        """The longest sentence in tokens; RoBERTa numbers its positions from 2."""
        return int(self.model.config.max_position_embeddings) - 2

    def save(self, folder: str | Path) -> None:
        """Write a folder that AutoModelForSequenceClassification and `load_verifier` load."""
        self.model.config.id2label = dict(enumerate(self.labels))
        self.model.config.label2id = {label: i for i, label in enumerate(self.labels)}
        self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)


def build_verifier(
    labels: Sequence[str], checkpoint: str | None = None, config: dict[str, Any] | None = None,
    sentences: Sequence[str] | None = None,
) -> Verifier:  # fmt: skip
    """A verifier to be trained for `labels`.

    From `checkpoint` (hub id or folder of any encoder), or with random weights of the sizes in `config` (`model_type` and
    its arguments) and a byte-level BPE tokenizer trained on `sentences`.
    """
    head = {"num_labels": len(labels), "problem_type": "multi_label_classification"}
    if checkpoint is not None:
        tokenizer = AutoTokenizer.from_pretrained(checkpoint)
        model = AutoModelForSequenceClassification.from_pretrained(checkpoint, ignore_mismatched_sizes=True, **head)
        return Verifier(model, tokenizer, labels)
    if config is None or not sentences:
        raise ValueError("a verifier without verifier.model.checkpoint needs verifier.model.config and sentences")
    tokenizer = train_tokenizer(sentences)
    sizes = {**config, "vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id, **head}
    model = AutoModelForSequenceClassification.from_config(AutoConfig.for_model(**sizes))
    return Verifier(model, tokenizer, labels)


def load_verifier(checkpoint: str) -> Verifier:
    """A trained verifier from a folder written by `Verifier.save` or from a hub id; its labels are in its config."""
    model = AutoModelForSequenceClassification.from_pretrained(checkpoint)
    labels = [model.config.id2label[i] for i in range(model.config.num_labels)]
    return Verifier(model, AutoTokenizer.from_pretrained(checkpoint), labels)


def train_tokenizer(texts: Sequence[str], vocab_size: int = 1000) -> PreTrainedTokenizerFast:
    """A lower-casing byte-level BPE in the shape of RoBERTa's."""
    core = ByteLevelBPETokenizer(lowercase=True)
    core.train_from_iterator(texts, vocab_size=vocab_size, special_tokens=_SPECIAL, show_progress=False)
    names = dict(zip(("bos_token", "pad_token", "eos_token", "unk_token", "mask_token"), _SPECIAL, strict=True))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core._tokenizer, **names)
    template = [(t, tokenizer.convert_tokens_to_ids(t)) for t in ("<s>", "</s>")]
    from tokenizers.processors import TemplateProcessing

    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<s> $A </s>", special_tokens=template)
    return tokenizer
