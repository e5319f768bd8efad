"""Client of a language model for many questions: concurrency limit, retries, circuit breaker, and a cache of replies."""

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

from erv.errors import UserError
from erv.llm.pricing import Price
from erv.llm.reply_cache import Ledger, Reply, ReplyCache
from erv.llm.transport import Attempt, Endpoint

Validate = Callable[[str], object]  # raises ValueError for a text that cannot be an answer
OnReply = Callable[[Reply], None]  # called with every new reply


class CircuitOpen(UserError):
    """The endpoint does not work at present, so no more calls are sent; replies that arrived are stored."""


class MissingKey(UserError, ValueError):
    """The environment variable with the API key is not set. A ValueError too, like other settings that do not fit."""


@dataclass(frozen=True)
class Question:
    """One request to a model."""

    version: str  # of the prompt, `Prompt.version`
    system: str  # the filled prompt
    user: str  # the data, `quote_as_json`
    schema: Mapping[str, Any]  # JSON schema of the reply
    expected_tokens: int = 20  # of the reply, for cost estimates


class Chat:
    """A model behind an OpenAI-compatible endpoint.

    A call that fails with HTTP 408, 409, 429 or 5xx, a time-out, a broken connection or an unreadable reply is retried after
    a random time of up to `backoff_s` x 2^n seconds, or as long as the endpoint asks for.

    Args:
        model: Name of the model at the endpoint.
        cache: SQLite file of replies.
        base_url: Address of the endpoint; None for OpenAI's.
        key_variable: Environment variable that the API key is read from, and nowhere else; None if the endpoint needs none.
        parameters: Added to every request (temperature, seed, …).
        concurrency: Most calls at the same time.
        timeout_s: Seconds until a call without a complete reply fails.
        attempts: Most calls per question, the first included.
        backoff_s: Seconds, unit of the waiting time before a retry.
        max_backoff_s: Longest waiting time in seconds, those that the endpoint asks for included.
        breaker: Failed calls in a row after which no more are sent.
        price: USD per million tokens.
    """

    def __init__(
        self,
        model: str,
        cache: str,
        base_url: str | None = None,
        key_variable: str | None = "OPENAI_API_KEY",
        parameters: Mapping[str, Any] | None = None,
        concurrency: int = 8,
        timeout_s: float = 60.0,
        attempts: int = 6,
        backoff_s: float = 1.0,
        max_backoff_s: float = 60.0,
        breaker: int = 30,
        price: Price | None = None,
    ) -> None:
        for key, value in (("concurrency", concurrency), ("attempts", attempts), ("breaker", breaker)):
            if value < 1:
                raise ValueError(f"llm.{key} is at least 1, got {value}")
        if timeout_s <= 0 or backoff_s < 0:
            raise ValueError(f"llm.timeout_s is above 0 and llm.backoff_s not below, got {timeout_s} and {backoff_s}")
        if key_variable is not None and not re.fullmatch(r"[A-Z_][A-Z0-9_]*", key_variable):
            raise ValueError(  # the value may be a key, so it is not repeated
                "llm.key_variable is the *name* of an environment variable, such as OPENAI_API_KEY; never put a key into a "
                "config"
            )
        if base_url is not None and ((url := urlsplit(base_url)).password or url.username or not url.hostname):
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
        self._asked: set[str] = set()  # keys of all questions that this object was asked

    def body(self, question: Question) -> dict[str, Any]:
        """The request as the endpoint receives it."""
        schema = {"name": "reply", "strict": True, "schema": dict(question.schema)}
        messages = [{"role": "system", "content": question.system}, {"role": "user", "content": question.user}]
        response_format = {"type": "json_schema", "json_schema": schema}
        return {"model": self.model, "messages": messages, "response_format": response_format, **self.parameters}

    def key(self, question: Question) -> str:
        """The key of a question in the cache: a hash of model, parameters, prompt version and everything that is sent."""
        text = json.dumps([question.version, self.body(question)], sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()

    def unanswered(self, questions: Sequence[Question]) -> dict[str, Question]:
        """The distinct questions without a cached reply, by key: those that asking would be paid for."""
        keyed = {self.key(q): q for q in questions}
        return {key: q for key, q in keyed.items() if self.cache.get(key) is None}

    def ask(self, questions: Sequence[Question], validate: Validate, on_reply: OnReply | None = None) -> list[Reply]:
        """Ask questions and return their replies in order; each distinct question is sent once, if at all.

        Args:
            questions: May repeat.
            validate: Raises ValueError for a text that cannot be an answer; the question is then asked again.
            on_reply: Called with every new reply.

        Returns:
            The replies. Those that are "failed" are not cached, so that asking again sends their questions again.

        Raises:
            CircuitOpen: When the endpoint does not work.
            MissingKey: When the key is not set.
        """
        return asyncio.run(self.ask_async(questions, validate, on_reply))

    async def ask_async(
        self,
        questions: Sequence[Question],
        validate: Validate,
        on_reply: OnReply | None = None,
    ) -> list[Reply]:
        """`ask`, as a coroutine."""
        unanswered = self.unanswered(questions)
        failed: dict[str, Reply] = {}
        if unanswered:
            endpoint = Endpoint(self.base_url, self._api_key(), self.timeout_s)
            failed = await _WorkerPool(self, endpoint, validate, on_reply).run(unanswered)
        keys = [self.key(q) for q in questions]
        self._asked.update(keys)
        return [self.cache.get(key) or failed[key] for key in keys]

    def ledger(self) -> Ledger:
        """Count the calls made for all questions that this object was asked, by earlier processes too."""
        return self.cache.ledger(self._asked)

    def require(self) -> None:
        """Raise MissingKey when the key is not set."""
        self._api_key()

    def _api_key(self) -> str:
        if self.key_variable is None:
            return "none"
        key = os.environ.get(self.key_variable)
        if not key:
            raise MissingKey(
                f"the key is read from the environment, and {self.key_variable} is not set; export it, or set "
                "llm.key_variable=null for an endpoint that wants none"
            )
        return key


class _WorkerPool:
    """The workers of one call of `Chat.ask`, which take questions until there are none or the circuit opens."""

    def __init__(self, chat: Chat, endpoint: Endpoint, validate: Validate, on_reply: OnReply | None) -> None:
        self.chat, self.endpoint, self.validate, self.on_reply = chat, endpoint, validate, on_reply
        self.failed: dict[str, Reply] = {}
        self.consecutive_failures = 0
        self.stop_reason: str | None = None  # set when the circuit opens

    async def run(self, questions: Mapping[str, Question]) -> dict[str, Reply]:
        """Ask the questions; returns the replies that failed, by key, and raises CircuitOpen."""
        queue = iter(questions.items())
        async with self.endpoint:
            workers = min(self.chat.concurrency, len(questions))
            await asyncio.gather(*(self._work(queue) for _ in range(workers)))
        if self.stop_reason is not None:
            raise CircuitOpen(self.stop_reason)
        return self.failed

    async def _work(self, queue: Iterator[tuple[str, Question]]) -> None:
        for key, question in queue:
            reply = await self._ask_with_retries(key, question)
            if self.stop_reason is not None:
                return
            if reply.status == "failed":
                self.failed[key] = reply
            if self.on_reply is not None:
                self.on_reply(reply)

    async def _ask_with_retries(self, key: str, question: Question) -> Reply:
        reason = ""
        for number in range(self.chat.attempts):
            if self.stop_reason is not None:
                break
            call = self.chat.cache.record_call(key)
            attempt = await self.endpoint.call(self.chat.body(question), self.validate)
            self.chat.spent += self.chat.price.cost(attempt.reply.input_tokens, attempt.reply.output_tokens)
            if attempt.reply.status != "failed":
                self.chat.cache.put(key, attempt.reply)
            self.chat.cache.record_outcome(call, attempt.outcome)
            self._update_circuit(attempt)
            if attempt.reply.status != "failed" or not attempt.retry:
                return attempt.reply
            reason = attempt.reply.reason
            if number + 1 < self.chat.attempts and self.stop_reason is None:
                await asyncio.sleep(self._pause(number, attempt))
        return Reply("failed", reason=f"{self.chat.attempts} calls, the last: {reason}")

    def _update_circuit(self, attempt: Attempt) -> None:
        """Open the circuit after a fatal failure or too many failures in a row."""
        self.consecutive_failures = self.consecutive_failures + 1 if attempt.reply.status == "failed" else 0
        if attempt.fatal:
            self.stop_reason = f"the endpoint refuses every call: {attempt.reply.reason}"
        elif self.consecutive_failures >= self.chat.breaker and self.stop_reason is None:
            self.stop_reason = (
                f"{self.consecutive_failures} calls in a row have failed (llm.breaker={self.chat.breaker}), the last: "
                f"{attempt.reply.reason}"
            )

    def _pause(self, number: int, attempt: Attempt) -> float:
        """Seconds before the next attempt: exponential backoff with full jitter, or what the endpoint asks for if longer."""
        longest = min(self.chat.max_backoff_s, self.chat.backoff_s * 2**number)
        return max(random.uniform(0, longest), min(attempt.wait_s, self.chat.max_backoff_s))
