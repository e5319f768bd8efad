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

from erv.evaluation.judges.base import OnVerdict, no_emotion, prompt_for
from erv.llm.prompts import quote_as_json
from erv.llm.reply_cache import Reply, ReplyCache
from erv.taxonomy import Taxonomy, counterpart
from erv.types import Verdict

_OPENING = '{"emotion": "'  # begins a causal model's reply, so that only a label can follow


class LocalJudge:
    """Reads explanations with a model on this machine.

    A "causal" model gets the prompt of the API judges and is decoded greedily among the labels only; a "classifier" has one
    output for each label (or for the label's counterpart in a built-in taxonomy), of which the likeliest counts. Verdicts are
    cached by weights, prompt version, labels and text. A text that exceeds the model's positions has no verdict ("failed").
    """

    free = False
    partial = False

    def __init__(
        self,
        taxonomy: Taxonomy,
        checkpoint: str,
        cache: str,
        kind: Literal["causal", "classifier"] = "causal",
        name: str = "local",
        prompt: str = "judge-1",
        batch_size: int = 16,
        dtype: str = "auto",
        device: str | None = None,
    ) -> None:
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
        """Model and tokenizer, loaded on first use."""
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
        """The classifier's output for each label."""
        outputs = tuple(config.id2label[i].lower() for i in range(config.num_labels))
        try:
            return [outputs.index(counterpart(label, outputs)) for label in self.taxonomy.labels]
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
        parts = [self.kind, self.weights, self.dtype, version, self.taxonomy.labels, text]
        return hashlib.sha256(json.dumps(parts, ensure_ascii=False).encode()).hexdigest()

    def _uncached(self, texts: Sequence[str]) -> list[str]:
        return [text for text in dict.fromkeys(texts) if self.cache.get(self._key(text)) is None]

    def pending(self, texts: Sequence[str]) -> int:
        """How many have no cached verdict."""
        return len(self._uncached(texts))

    def cost(self, texts: Sequence[str]) -> None:
        """No money."""

    def describe(self) -> dict[str, Any]:
        """The model and its weights."""
        prompt = {"prompt": self.prompt.version} if self.kind == "causal" else {}
        return {"kind": f"local {self.kind}", "model": self.checkpoint, "weights": self.weights, **prompt}

    async def read(self, texts: Sequence[str], on_verdict: OnVerdict = lambda: None) -> list[Verdict | None]:
        """One verdict per text; the verdicts of each batch are cached before the next one begins."""
        uncached = sorted(self._uncached(texts), key=len)  # texts of similar length share a batch: less padding
        failed: dict[str, str] = {}
        for start in range(0, len(uncached), self.batch_size):
            batch = uncached[start : start + self.batch_size]
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
            return no_emotion(self.name, "failed", failed[text])
        return Verdict(self.name, reply.text, "ok")

    @torch.inference_mode()
    def _replies(self, texts: list[str]) -> list[Reply]:
        """A label for each text; "failed" for those that exceed the model's positions."""
        model, tokenizer = self.loaded
        causal = self.kind == "causal"
        inputs = [self._prompted(text) for text in texts] if causal else texts
        # a classifier's input gets its special tokens here; in a causal prompt the template has written them
        ids = tokenizer(inputs, add_special_tokens=not causal, split_special_tokens=not causal)["input_ids"]
        limit = _max_positions(model, tokenizer) - (self._reply_tokens(tokenizer) if causal else 0)
        fitting = [i for i, row in enumerate(ids) if len(row) <= limit]
        replies = [Reply("failed", reason=f"longer than the model's {limit} tokens")] * len(texts)
        if fitting:
            batch = tokenizer.pad({"input_ids": [ids[i] for i in fitting]}, return_tensors="pt").to(self.device)
            labels = self._decode(batch) if causal else self._classify(batch)
            for i, label in zip(fitting, labels, strict=True):
                replies[i] = Reply("answered", label)
        return replies

    def _prompted(self, text: str) -> str:
        _, tokenizer = self.loaded
        quoted = quote_as_json(text=text)
        # special tokens within a text must stay text: JSON allows any character to be written as an escape
        for token in tokenizer.all_special_tokens:
            quoted = quoted.replace(token, f"\\u{ord(token[0]):04x}{token[1:]}")
        content = f"{self._system}\n\n{quoted}"
        if not tokenizer.chat_template:
            return f"{content}\n\n{_OPENING}"
        message = [{"role": "user", "content": content}]  # one message, since some templates have no system role
        return str(tokenizer.apply_chat_template(message, add_generation_prompt=True, tokenize=False)) + _OPENING

    def _candidates(self, tokenizer: Any) -> list[list[int]]:
        """The tokens of each label with the closing quote."""
        return [tokenizer(f'{label}"', add_special_tokens=False)["input_ids"] for label in self.taxonomy.labels]

    def _reply_tokens(self, tokenizer: Any) -> int:
        """The most tokens of a reply: the longest label, and the end token."""
        return max(len(tokens) for tokens in self._candidates(tokenizer)) + 1

    def _decode(self, batch: Any) -> list[str]:
        """Generate a label for each row, with every token restricted to those that continue some label."""
        model, tokenizer = self.loaded
        candidates, start = self._candidates(tokenizer), batch["input_ids"].shape[1]
        end = tokenizer.eos_token_id if tokenizer.eos_token_id is not None else tokenizer.pad_token_id

        def allowed(_: int, ids: Any) -> list[int]:
            prefix = ids[start:].tolist()
            n = len(prefix)
            return sorted({c[n] for c in candidates if c[:n] == prefix and len(c) > n}) or [end]

        output = model.generate(
            **batch,
            max_new_tokens=self._reply_tokens(tokenizer),
            do_sample=False,
            temperature=None,
            top_p=None,
            top_k=None,
            prefix_allowed_tokens_fn=allowed,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=end,
        )
        rows = [row[start:].tolist() for row in output]
        return [
            next(label for label, c in zip(self.taxonomy.labels, candidates, strict=True) if row[: len(c)] == c)
            for row in rows
        ]

    def _classify(self, batch: Any) -> list[str]:
        """The label with the largest logit for each row."""
        model, _ = self.loaded
        logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        return [self.taxonomy.labels[i] for i in logits[:, self._columns(model.config)].argmax(1).tolist()]


def _max_positions(model: Any, tokenizer: Any) -> int:
    """The most tokens that an input may have; RoBERTa numbers its positions from 2."""
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None) or tokenizer.model_max_length
    return int(positions) - (2 if "roberta" in model.config.model_type else 0)
