"""One call to the endpoint, and what its outcome means. The only module that uses the openai client."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import openai

from erv.llm.reply_cache import Reply

_RETRIED = (408, 409, 429)
_FATAL = (401, 403, 404)  # key, permission, model or address is wrong, so every other call would fail as well
_MAX_REASON = 200  # characters of an endpoint's message that are stored
_MAX_TOKENS = 2**31  # a larger number is no count of tokens


@dataclass(frozen=True, slots=True)
class Attempt:
    """The result of one call."""

    reply: Reply
    outcome: str  # "answered", "refused", "unreadable", "http STATUS" or the name of an exception; for the log of calls
    retry: bool = False  # another call may succeed
    fatal: bool = False  # no call can succeed
    wait_s: float = 0.0  # seconds that the endpoint asks to wait before the next call


class Endpoint:
    """An OpenAI-compatible endpoint; the client's own retries are off, since they would hide calls that are paid for."""

    def __init__(self, base_url: str | None, key: str, timeout_s: float) -> None:
        self._key, self._timeout_s = key, timeout_s
        self._client = openai.AsyncOpenAI(api_key=key, base_url=base_url, timeout=timeout_s, max_retries=0)

    async def __aenter__(self) -> Endpoint:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.close()

    async def call(self, body: dict[str, Any], validate: Callable[[str], object]) -> Attempt:
        """Send `body` and classify the outcome; raises nothing, whatever the endpoint does.

        `validate` raises ValueError for a text that cannot be an answer.
        """
        try:
            # the client's time-out covers a single read and starts anew with every byte; this one covers the whole reply
            async with asyncio.timeout(self._timeout_s):
                completion = await self._client.chat.completions.create(**body)
        except openai.APIStatusError as error:
            return self._classify_status(error)
        except (openai.APIConnectionError, TimeoutError) as error:  # the client's time-outs are connection errors
            return _failed(type(error).__name__, "no reply from the endpoint", retry=True)
        except (openai.APIResponseValidationError, ValueError, RecursionError) as error:
            return _failed("unreadable", f"the reply is no completion ({type(error).__name__})", retry=True)
        return _classify_completion(completion, validate)

    def _classify_status(self, error: openai.APIStatusError) -> Attempt:
        status = error.status_code
        if status in _FATAL:  # without the endpoint's message, which may repeat a part of the key
            return _failed(f"http {status}", f"HTTP {status}", fatal=True)
        if error.code == "content_filter":
            return Attempt(Reply("refused", reason="content filter"), "refused")
        message = _storable(str(error.message).replace(self._key, "***"))
        retry = status in _RETRIED or status >= 500
        return _failed(f"http {status}", f"HTTP {status}: {message}", retry=retry, wait_s=_retry_after(error))


def read_completion(body: dict[str, Any], validate: Callable[[str], object]) -> Reply:
    """Read the reply in the JSON body of a completion, as a result file of the Batch API holds it."""
    from openai.types.chat import ChatCompletion

    try:
        completion = ChatCompletion.model_validate(body)
    except ValueError as error:
        return Reply("failed", reason=f"the reply is no completion ({type(error).__name__})")
    return _classify_completion(completion, validate).reply


def _classify_completion(completion: Any, validate: Callable[[str], object]) -> Attempt:
    """Read a completion. The client checks no types, so that any part of it may be any JSON value."""
    usage, choices = getattr(completion, "usage", None), getattr(completion, "choices", None)
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = getattr(choice, "message", None)
    if message is None or isinstance(message, str):
        return _failed("unreadable", "the reply is no completion", retry=True)
    input_tokens = _token_count(getattr(usage, "prompt_tokens", None))
    output_tokens = _token_count(getattr(usage, "completion_tokens", None))
    refusal, text = getattr(message, "refusal", None), getattr(message, "content", None) or ""
    if refusal or getattr(choice, "finish_reason", None) == "content_filter":
        reason = _storable(str(refusal or "content filter"))
        return Attempt(Reply("refused", "", reason, input_tokens, output_tokens), "refused")
    try:
        if not isinstance(text, str):
            raise ValueError(f"its content is of type {type(text).__name__}")
        text.encode()  # a lone surrogate is a UnicodeEncodeError, a ValueError: it could not be stored
        validate(text)
    except (ValueError, RecursionError) as error:
        reply = Reply("failed", "", _storable(f"unreadable reply: {error}"), input_tokens, output_tokens)
        return Attempt(reply, "unreadable", retry=True)
    return Attempt(Reply("answered", text, "", input_tokens, output_tokens), "answered")


def _token_count(value: Any) -> int:
    """A count of tokens; 0 for a value that is none."""
    return value if isinstance(value, int) and 0 <= value < _MAX_TOKENS else 0


def _storable(reason: str) -> str:
    """Shorten a reason, and replace what cannot be encoded as UTF-8."""
    return reason[:_MAX_REASON].encode(errors="replace").decode()


def _failed(outcome: str, reason: str, retry: bool = False, fatal: bool = False, wait_s: float = 0.0) -> Attempt:
    return Attempt(Reply("failed", reason=reason), outcome, retry, fatal, wait_s)


def _retry_after(error: openai.APIStatusError) -> float:
    """Seconds that the endpoint asks to wait; 0 if it names none, or a date."""
    try:
        return max(0.0, float(error.response.headers.get("retry-after", 0)))
    except ValueError:
        return 0.0
