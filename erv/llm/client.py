"""Asking many questions at once: a limit on what is under way, retries, a circuit breaker, and a cache in front."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from erv.llm.pricing import Price
from erv.llm.reply_cache import Ledger, Reply, ReplyCache
from erv.llm.transport import Attempt, Endpoint

Readable = Callable[[str], object]


class CircuitOpen(Exception):
    """The endpoint does not work at present, so nothing more is sent; replies that came are kept."""


@dataclass(frozen=True)
class Question:
    """One request: `system` from the prompt of `version`, `user` with the data, and the JSON schema of the reply.

    `expected_tokens` is how long the reply may be, for the estimate of costs.
    """

    version: str
    system: str
    user: str
    schema: Mapping[str, Any]
    expected_tokens: int = 20


class Chat:
    """A model behind an OpenAI-compatible endpoint.

    `base_url` None means OpenAI's own. The key is read from the environment variable `key_variable` and from nowhere else;
    null means that the endpoint wants none. `parameters` go into every request (temperature, seed, …). A call that fails
    with 408, 409, 429, 5xx, a time-out, a broken connection or an unreadable reply is repeated, at most `attempts` times
    in all, after a random time of up to `backoff_s` x 2^n seconds (at most `max_backoff_s`), or as long as the endpoint
    says. After `breaker` failed calls in a row nothing more is sent. `price` is USD per million tokens.
    """

    def __init__(
        self, model: str, cache: str, base_url: str | None = None, key_variable: str | None = "OPENAI_API_KEY",
        parameters: Mapping[str, Any] | None = None, concurrency: int = 8, timeout_s: float = 60.0, attempts: int = 6,
        backoff_s: float = 1.0, max_backoff_s: float = 60.0, breaker: int = 30, price: Price | None = None,
    ) -> None:  # fmt: skip
        for key, value in (("concurrency", concurrency), ("attempts", attempts), ("breaker", breaker)):
            if value < 1:
                raise ValueError(f"llm.{key} is at least 1, got {value}")
        if timeout_s <= 0 or backoff_s < 0:
            raise ValueError(f"llm.timeout_s is above 0 and llm.backoff_s not below, got {timeout_s} and {backoff_s}")
        if key_variable is not None and not re.fullmatch(r"[A-Z_][A-Z0-9_]*", key_variable):
            raise ValueError(  # what was given may be a key, so it is not repeated
                "llm.key_variable is the *name* of an environment variable, such as OPENAI_API_KEY; never put a key into a "
                "config"
            )
        if base_url is not None and ((where := urlsplit(base_url)).password or where.username or not where.hostname):
            raise ValueError(
                "llm.base_url is http(s)://host/path without user name or password; the key goes elsewhere"
            )
        self.model, self.base_url, self.key_variable = model, base_url, key_variable
        self.parameters = dict(parameters or {})
        self.concurrency, self.timeout_s, self.attempts = concurrency, timeout_s, attempts
        self.backoff_s, self.max_backoff_s, self.breaker = backoff_s, max_backoff_s, breaker
        self.price = price or Price()
        self.cache = ReplyCache(cache)
        self.spent = 0.0  # USD, by this object
        self._asked: set[str] = set()

    def body(self, question: Question) -> dict[str, Any]:
        """The request as the endpoint receives it."""
        schema = {"name": "reply", "strict": True, "schema": dict(question.schema)}
        messages = [{"role": "system", "content": question.system}, {"role": "user", "content": question.user}]
        return {
            "model": self.model, "messages": messages, "response_format": {"type": "json_schema", "json_schema": schema},
            **self.parameters,
        }  # fmt: skip

    def key(self, question: Question) -> str:
        """What a reply is remembered under: model, parameters, prompt version and everything that is sent."""
        text = json.dumps([question.version, self.body(question)], sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()

    def new(self, questions: Sequence[Question]) -> dict[str, Question]:
        """The distinct questions, by key, that have no reply yet: what asking would be paid for."""
        keyed = {self.key(q): q for q in questions}
        return {key: q for key, q in keyed.items() if self.cache.get(key) is None}

    def ask(
        self, questions: Sequence[Question], readable: Readable, on_reply: Callable[[Reply], None] | None = None
    ) -> list[Reply]:  # fmt: skip
        """The replies, in order; each distinct question is sent once, if at all.

        `readable` raises ValueError for a text that cannot be an answer, which is then asked for again. `on_reply` is told
        every new reply. Replies "failed" are not remembered: asking again sends them again.
        Raises CircuitOpen, and ValueError when the key is missing.
        """
        return asyncio.run(self.replies(questions, readable, on_reply))

    async def replies(
        self, questions: Sequence[Question], readable: Readable, on_reply: Callable[[Reply], None] | None = None
    ) -> list[Reply]:  # fmt: skip
        """`ask` for those who have other things to wait for as well."""
        new = self.new(questions)
        failed: dict[str, Reply] = {}
        if new:
            endpoint = Endpoint(self.base_url, self._api_key(), self.timeout_s)
            failed = await _Round(self, endpoint, readable, on_reply).run(new)
        keys = [self.key(q) for q in questions]
        self._asked.update(keys)
        return [self.cache.get(key) or failed[key] for key in keys]

    def ledger(self) -> Ledger:
        """The calls made for every question that this object was asked, those of earlier processes included."""
        return self.cache.ledger(self._asked)

    def require(self) -> None:
        """Raise ValueError when the key is missing."""
        self._api_key()

    def _api_key(self) -> str:
        if self.key_variable is None:
            return "none"
        key = os.environ.get(self.key_variable)
        if not key:
            raise ValueError(
                f"the key is read from the environment, and {self.key_variable} is not set; export it, or set "
                "llm.key_variable=null for an endpoint that wants none"
            )
        return key


class _Round:
    """One call of `Chat.ask`: workers that take questions until there are none, or until the circuit opens."""

    def __init__(
        self, chat: Chat, endpoint: Endpoint, readable: Readable, on_reply: Callable[[Reply], None] | None
    ) -> None:  # fmt: skip
        self.chat, self.endpoint, self.readable, self.on_reply = chat, endpoint, readable, on_reply
        self.failed: dict[str, Reply] = {}
        self.in_a_row = 0
        self.stop: str | None = None  # why nothing more is sent

    async def run(self, questions: Mapping[str, Question]) -> dict[str, Reply]:
        """Ask; returns the replies that failed."""
        waiting = iter(questions.items())
        async with self.endpoint:
            workers = min(self.chat.concurrency, len(questions))
            await asyncio.gather(*(self._work(waiting) for _ in range(workers)))
        if self.stop is not None:
            raise CircuitOpen(self.stop)
        return self.failed

    async def _work(self, waiting: Iterator[tuple[str, Question]]) -> None:
        for key, question in waiting:
            reply = await self._reply(key, question)
            if self.stop is not None:
                return
            if reply.status == "failed":
                self.failed[key] = reply
            if self.on_reply is not None:
                self.on_reply(reply)

    async def _reply(self, key: str, question: Question) -> Reply:
        reason = ""
        for number in range(self.chat.attempts):
            if self.stop is not None:
                break
            call = self.chat.cache.sent(key)
            attempt = await self.endpoint.call(self.chat.body(question), self.readable)
            self.chat.spent += self.chat.price.of(attempt.reply.input_tokens, attempt.reply.output_tokens)
            if attempt.reply.status != "failed":
                self.chat.cache.put(key, attempt.reply)
            self.chat.cache.came_back(call, attempt.outcome)
            self._watch(attempt)
            if attempt.reply.status != "failed" or not attempt.retry:
                return attempt.reply
            reason = attempt.reply.reason
            if number + 1 < self.chat.attempts and self.stop is None:
                await asyncio.sleep(self._pause(number, attempt))
        return Reply("failed", reason=f"{self.chat.attempts} calls, the last: {reason}")

    def _watch(self, attempt: Attempt) -> None:
        self.in_a_row = self.in_a_row + 1 if attempt.reply.status == "failed" else 0
        if attempt.fatal:
            self.stop = f"the endpoint refuses every call: {attempt.reply.reason}"
        elif self.in_a_row >= self.chat.breaker and self.stop is None:
            self.stop = (
                f"{self.in_a_row} calls in a row have failed (llm.breaker={self.chat.breaker}), the last: "
                f"{attempt.reply.reason}"
            )

    def _pause(self, number: int, attempt: Attempt) -> float:
        longest = min(self.chat.max_backoff_s, self.chat.backoff_s * 2**number)
        return max(random.uniform(0, longest), min(attempt.wait_s, self.chat.max_backoff_s))
