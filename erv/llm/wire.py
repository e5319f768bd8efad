"""One call to the endpoint, and what its outcome means. The only file that knows the openai client."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import openai

from erv.llm.cache import Reply

_RETRIED = (408, 409, 429)
_FATAL = (401, 403, 404)  # the key, the permission, the model or the address is wrong: so would be every other call
_REASON = 200  # characters of an endpoint's message that are kept


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
        self._key = key
        self._client = openai.AsyncOpenAI(api_key=key, base_url=base_url, timeout=timeout_s, max_retries=0)

    async def __aenter__(self) -> Endpoint:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.close()

    async def call(self, body: dict[str, Any], readable: Callable[[str], object]) -> Attempt:
        """Send `body`; nothing that the endpoint may do is raised."""
        try:
            found = await self._client.chat.completions.create(**body)
        except openai.APIStatusError as error:
            return self._refused(error)
        except openai.APIConnectionError as error:  # time-outs among them
            return _failed(type(error).__name__, "no reply from the endpoint", retry=True)
        except (openai.APIResponseValidationError, ValueError) as error:
            return _failed("unreadable", f"the reply is no completion ({type(error).__name__})", retry=True)
        return _read(found, readable)

    def _refused(self, error: openai.APIStatusError) -> Attempt:
        status = error.status_code
        if status in _FATAL:  # such messages may repeat a part of the key
            return _failed(f"http {status}", f"HTTP {status}", fatal=True)
        if error.code == "content_filter":
            return Attempt(Reply("refused", reason="content filter"), "refused")
        message = str(error.message).replace(self._key, "***")[:_REASON]
        retry = status in _RETRIED or status >= 500
        return _failed(f"http {status}", f"HTTP {status}: {message}", retry=retry, wait_s=_retry_after(error))


def _read(found: Any, readable: Callable[[str], object]) -> Attempt:
    usage, choices = getattr(found, "usage", None), getattr(found, "choices", None) or []
    read, written = (getattr(usage, name, None) or 0 for name in ("prompt_tokens", "completion_tokens"))
    message = getattr(choices[0], "message", None) if choices else None
    if message is None:
        return _failed("unreadable", "the reply is no completion", retry=True)
    if message.refusal or choices[0].finish_reason == "content_filter":
        reason = (message.refusal or "content filter")[:_REASON]
        return Attempt(Reply("refused", "", reason, read, written), "refused")
    text = message.content or ""
    try:
        readable(text)
    except ValueError as error:
        reply = Reply("failed", "", f"unreadable reply: {error}"[:_REASON], read, written)
        return Attempt(reply, "unreadable", retry=True)
    return Attempt(Reply("answered", text, "", read, written), "answered")


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

    return _read(ChatCompletion.model_validate(body), readable).reply
