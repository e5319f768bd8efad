"""One call to the endpoint, and what its outcome means. The only file that knows the openai client."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import openai

from erv.llm.reply_cache import Reply

_RETRIED = (408, 409, 429)
_FATAL = (401, 403, 404)  # the key, the permission, the model or the address is wrong: so would be every other call
_REASON = 200  # characters of an endpoint's message that are kept
_MOST_TOKENS = 2**31  # more than that is no count


@dataclass(frozen=True, slots=True)
class Attempt:
    """What one call brought: a reply, whether another call may bring more, and how long to wait before it, in seconds."""

    reply: Reply
    outcome: str
    retry: bool = False
    fatal: bool = False
    wait_s: float = 0.0


class Endpoint:
    """The openai client without its own retries, which would hide calls that are paid for."""

    def __init__(self, base_url: str | None, key: str, timeout_s: float) -> None:
        self._key, self._timeout_s = key, timeout_s
        self._client = openai.AsyncOpenAI(api_key=key, base_url=base_url, timeout=timeout_s, max_retries=0)

    async def __aenter__(self) -> Endpoint:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.close()

    async def call(self, body: dict[str, Any], readable: Callable[[str], object]) -> Attempt:
        """Send `body`; nothing that the endpoint may do is raised. The whole reply must be there in time: the client's own
        time-out is for each of its reads, and starts anew with every byte."""
        try:
            async with asyncio.timeout(self._timeout_s):
                found = await self._client.chat.completions.create(**body)
        except openai.APIStatusError as error:
            return self._refused(error)
        except (openai.APIConnectionError, TimeoutError) as error:  # the client's time-outs are connection errors
            return _failed(type(error).__name__, "no reply from the endpoint", retry=True)
        except (openai.APIResponseValidationError, ValueError, RecursionError) as error:
            return _failed("unreadable", f"the reply is no completion ({type(error).__name__})", retry=True)
        return _read(found, readable)

    def _refused(self, error: openai.APIStatusError) -> Attempt:
        status = error.status_code
        if status in _FATAL:  # such messages may repeat a part of the key
            return _failed(f"http {status}", f"HTTP {status}", fatal=True)
        if error.code == "content_filter":
            return Attempt(Reply("refused", reason="content filter"), "refused")
        message = _plain(str(error.message).replace(self._key, "***"))
        retry = status in _RETRIED or status >= 500
        return _failed(f"http {status}", f"HTTP {status}: {message}", retry=retry, wait_s=_retry_after(error))


def _read(found: Any, readable: Callable[[str], object]) -> Attempt:
    """What a completion says. The client checks no types: any part of it may be anything that JSON can be."""
    usage, choices = getattr(found, "usage", None), getattr(found, "choices", None)
    first = choices[0] if isinstance(choices, list) and choices else None
    message = getattr(first, "message", None)
    if message is None or isinstance(message, str):
        return _failed("unreadable", "the reply is no completion", retry=True)
    read, written = (_count(getattr(usage, name, None)) for name in ("prompt_tokens", "completion_tokens"))
    refusal, text = getattr(message, "refusal", None), getattr(message, "content", None) or ""
    if refusal or getattr(first, "finish_reason", None) == "content_filter":
        reason = _plain(str(refusal or "content filter"))
        return Attempt(Reply("refused", "", reason, read, written), "refused")
    try:
        if not isinstance(text, str):
            raise ValueError(f"its content is of type {type(text).__name__}")
        text.encode()  # half of a character (a lone surrogate) can be stored nowhere
        readable(text)
    except (ValueError, RecursionError) as error:
        reply = Reply("failed", "", _plain(f"unreadable reply: {error}"), read, written)
        return Attempt(reply, "unreadable", retry=True)
    return Attempt(Reply("answered", text, "", read, written), "answered")


def _count(tokens: Any) -> int:
    """A count of tokens; 0 for what is none."""
    return tokens if isinstance(tokens, int) and 0 <= tokens < _MOST_TOKENS else 0


def _plain(reason: str) -> str:
    """The beginning of a reason, as text that can be written to a file."""
    return reason[:_REASON].encode(errors="replace").decode()


def _failed(outcome: str, reason: str, retry: bool = False, fatal: bool = False, wait_s: float = 0.0) -> Attempt:
    return Attempt(Reply("failed", reason=reason), outcome, retry, fatal, wait_s)


def _retry_after(error: openai.APIStatusError) -> float:
    """Seconds that the endpoint asks to wait; 0 when it does not say, or says a date."""
    try:
        return max(0.0, float(error.response.headers.get("retry-after", 0)))
    except ValueError:
        return 0.0


def read_completion(body: dict[str, Any], readable: Callable[[str], object]) -> Reply:
    """The reply in the JSON body of a completion, as a batch's result file holds it."""
    from openai.types.chat import ChatCompletion

    try:
        found = ChatCompletion.model_validate(body)
    except ValueError as error:
        return Reply("failed", reason=f"the reply is no completion ({type(error).__name__})")
    return _read(found, readable).reply
