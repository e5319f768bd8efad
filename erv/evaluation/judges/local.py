"""A Hugging Face model on this machine as judge: a causal language model, or a classifier."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from erv.evaluation.judges.base import OnVerdict, prompt_for, refused
from erv.llm.prompts import quote_as_json
from erv.llm.reply_cache import Reply, ReplyCache
from erv.taxonomy import Taxonomy, counterpart
from erv.types import Verdict

_OPENING = '{"emotion": "'  # what a causal model's reply begins with, so that only a label can follow


class LocalJudge:
    """Reads explanations with a model of one's own.

    A "causal" model is asked with the prompt of the API judges and decoded greedily among the labels only; a "classifier" has
    one output for each label (or for what a built-in taxonomy calls it), of which the likeliest counts. Verdicts are
    cached by weights, prompt version, labels and text. A text that the model cannot take in whole has no verdict ("failed").
    """

    free = False
    partial = False

    def __init__(
        self, taxonomy: Taxonomy, checkpoint: str, cache: str, kind: Literal["causal", "classifier"] = "causal",
        name: str = "local", prompt: str = "judge-1", batch_size: int = 16, dtype: str = "auto", device: str | None = None,
    ) -> None:  # fmt: skip
        if kind not in ("causal", "classifier"):
            raise ValueError(f"judge.{name}.kind is causal or classifier, got {kind!r}")
        if batch_size < 1:
            raise ValueError(f"judge.{name}.batch_size is at least 1, got {batch_size}")
        self.name, self.taxonomy, self.checkpoint, self.kind = name, taxonomy, checkpoint, kind
        self.batch_size, self.dtype = batch_size, dtype
        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self.prompt, self._system = prompt_for(taxonomy, prompt)
        self.cache = ReplyCache(cache)
        self._loaded: tuple[Any, Any] | None = None
        self._weights: str | None = None

    def require(self) -> None:
        """Raise ValueError for what is no model, or a classifier that lacks an emotion; the weights are loaded later."""
        try:
            config = AutoConfig.from_pretrained(self.checkpoint, trust_remote_code=False)
        except (OSError, ValueError) as error:
            raise ValueError(f"judge.{self.name}.checkpoint is a model's folder or a hub id: {error}") from error
        if self.kind == "classifier":
            self._columns(config)

    @property
    def loaded(self) -> tuple[Any, Any]:
        """Model and tokenizer."""
        if self._loaded is None:
            auto = AutoModelForCausalLM if self.kind == "causal" else AutoModelForSequenceClassification
            tokenizer = AutoTokenizer.from_pretrained(self.checkpoint, padding_side="left", trust_remote_code=False)
            model = auto.from_pretrained(self.checkpoint, dtype=self.dtype, trust_remote_code=False)
            model = model.to(self.device).eval()
            if tokenizer.pad_token is None:
                tokenizer.pad_token = tokenizer.eos_token
            self._loaded = model, tokenizer
        return self._loaded

    def _columns(self, config: Any) -> list[int]:
        """The output that stands for each label."""
        named = tuple(config.id2label[i].lower() for i in range(config.num_labels))
        try:
            return [named.index(counterpart(label, named)) for label in self.taxonomy.labels]
        except ValueError as error:
            raise ValueError(f"judge.{self.name}.checkpoint: {error}") from error

    @property
    def weights(self) -> str:
        """The identity of the weights: a hub model's commit, or the hash of a folder's files."""
        if self._weights is None:
            files = sorted(f for f in Path(self.checkpoint).glob("*") if f.suffix in (".safetensors", ".bin", ".json"))
            digest = hashlib.sha256()
            for file in files:
                with file.open("rb") as content:
                    digest.update(file.name.encode() + hashlib.file_digest(content, "sha256").digest())
            commit = getattr(self.loaded[0].config, "_commit_hash", None)
            self._weights = digest.hexdigest() if files else str(commit or self.checkpoint)
        return self._weights

    def _key(self, text: str) -> str:
        version = self.prompt.version if self.kind == "causal" else ""
        made_of = [self.kind, self.weights, self.dtype, version, self.taxonomy.labels, text]
        return hashlib.sha256(json.dumps(made_of, ensure_ascii=False).encode()).hexdigest()

    def _new(self, texts: Sequence[str]) -> list[str]:
        return [text for text in dict.fromkeys(texts) if self.cache.get(self._key(text)) is None]

    def waiting(self, texts: Sequence[str]) -> int:
        """How many have no verdict yet."""
        return len(self._new(texts))

    def cost(self, texts: Sequence[str]) -> None:
        """No money."""

    def describe(self) -> dict[str, Any]:
        """The model and its weights."""
        prompt = {"prompt": self.prompt.version} if self.kind == "causal" else {}
        return {"kind": f"local {self.kind}", "model": self.checkpoint, "weights": self.weights, **prompt}

    async def read(self, texts: Sequence[str], on_verdict: OnVerdict = lambda: None) -> list[Verdict | None]:
        """One verdict per text; each batch is remembered before the next is begun."""
        new = sorted(self._new(texts), key=len)
        failed: dict[str, str] = {}
        for start in range(0, len(new), self.batch_size):
            batch = new[start : start + self.batch_size]
            for text, reply in zip(batch, await asyncio.to_thread(self._replies, batch), strict=True):
                if reply.status == "failed":
                    failed[text] = reply.reason
                else:
                    self.cache.put(self._key(text), reply)
                on_verdict()
        return [self._verdict(text, failed) for text in texts]

    def _verdict(self, text: str, failed: dict[str, str]) -> Verdict:
        reply = self.cache.get(self._key(text))
        if reply is None:
            return refused(self.name, "failed", failed[text])
        return Verdict(self.name, reply.text, "ok")

    @torch.inference_mode()
    def _replies(self, texts: list[str]) -> list[Reply]:
        """A label for each text that fits into the model's positions."""
        model, tokenizer = self.loaded
        prompts = [self._prompted(text) for text in texts] if self.kind == "causal" else texts
        classifies = self.kind == "classifier"
        ids = tokenizer(prompts, add_special_tokens=classifies, split_special_tokens=classifies)["input_ids"]
        limit = _longest(model, tokenizer) - (self._room(tokenizer) if self.kind == "causal" else 0)
        fits = [i for i, row in enumerate(ids) if len(row) <= limit]
        batch = (
            tokenizer.pad({"input_ids": [ids[i] for i in fits]}, return_tensors="pt").to(self.device) if fits else None
        )
        named = iter(
            [] if batch is None else self._decoded(batch) if self.kind == "causal" else self._classified(batch)
        )
        return [
            Reply("answered", next(named))
            if i in fits
            else Reply("failed", reason=f"longer than the model's {limit} tokens")
            for i in range(len(texts))
        ]

    def _prompted(self, text: str) -> str:
        _, tokenizer = self.loaded
        quoted = quote_as_json(text=text)
        for token in (
            tokenizer.all_special_tokens
        ):  # in a text it is text: in JSON every character can be written in another way
            quoted = quoted.replace(token, f"\\u{ord(token[0]):04x}{token[1:]}")
        asked = f"{self._system}\n\n{quoted}"
        if not tokenizer.chat_template:
            return f"{asked}\n\n{_OPENING}"
        message = [{"role": "user", "content": asked}]  # some templates know no system role
        return str(tokenizer.apply_chat_template(message, add_generation_prompt=True, tokenize=False)) + _OPENING

    def _candidates(self, tokenizer: Any) -> list[list[int]]:
        return [tokenizer(f'{label}"', add_special_tokens=False)["input_ids"] for label in self.taxonomy.labels]

    def _room(self, tokenizer: Any) -> int:
        return max(len(tokens) for tokens in self._candidates(tokenizer)) + 1

    def _decoded(self, batch: Any) -> list[str]:
        """The labels that the model writes when it can write nothing else."""
        model, tokenizer = self.loaded
        candidates, start = self._candidates(tokenizer), batch["input_ids"].shape[1]
        end = tokenizer.eos_token_id if tokenizer.eos_token_id is not None else tokenizer.pad_token_id

        def allowed(_: int, ids: Any) -> list[int]:
            written = ids[start:].tolist()
            return sorted(
                {c[len(written)] for c in candidates if c[: len(written)] == written and len(c) > len(written)}
            ) or [end]

        out = model.generate(
            **batch, max_new_tokens=self._room(tokenizer), do_sample=False, temperature=None, top_p=None, top_k=None,
            prefix_allowed_tokens_fn=allowed, pad_token_id=tokenizer.pad_token_id, eos_token_id=end,
        )  # fmt: skip
        rows = [row[start:].tolist() for row in out]
        return [
            next(label for label, c in zip(self.taxonomy.labels, candidates, strict=True) if row[: len(c)] == c)
            for row in rows
        ]

    def _classified(self, batch: Any) -> list[str]:
        model, _ = self.loaded
        logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        return [self.taxonomy.labels[i] for i in logits[:, self._columns(model.config)].argmax(1).tolist()]


def _longest(model: Any, tokenizer: Any) -> int:
    """The most tokens that a text may have; RoBERTa numbers its positions from 2."""
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None) or tokenizer.model_max_length
    return int(positions) - (2 if "roberta" in model.config.model_type else 0)
