"""A judge behind an OpenAI-compatible endpoint: GPT, Gemini, one's own vLLM server (paper, evaluation)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from erv.evaluation.judges.base import OnVerdict, no_emotion, prompt_for
from erv.llm.client import Chat, Question
from erv.llm.pricing import Estimate, estimate
from erv.llm.prompts import quote_as_json
from erv.llm.reply_cache import Reply
from erv.taxonomy import Taxonomy
from erv.types import Verdict
from erv.utils.sanitize import parse_json


class APIJudge:
    """Asks a model for the one emotion that an explanation speaks of.

    A JSON schema restricts the reply to the taxonomy's labels. Replies are cached by model, parameters, prompt version and text,
    so that a second evaluation asks nothing. A reply off the list, a refusal and a failed call become verdicts without an
    emotion, with that status.
    """

    free = False
    partial = False

    def __init__(self, taxonomy: Taxonomy, llm: Chat, name: str = "api", prompt: str = "judge-1") -> None:
        self.name, self.taxonomy, self.llm = name, taxonomy, llm
        self.prompt, self._system = prompt_for(taxonomy, prompt)
        self._schema = {
            "type": "object",
            "properties": {"emotion": {"type": "string", "enum": list(taxonomy.labels)}},
            "required": ["emotion"],
            "additionalProperties": False,
        }

    def require(self) -> None:
        """Raise ValueError when the key is not set."""
        self.llm.require()

    def pending(self, texts: Sequence[str]) -> int:
        """How many have no cached reply."""
        return len(self.llm.unanswered(self._questions(texts)))

    def cost(self, texts: Sequence[str]) -> Estimate:
        """Calls, tokens and USD for the texts without a cached reply."""
        new = self.llm.unanswered(self._questions(texts)).values()
        return estimate(((self.llm.body(q), q.expected_tokens) for q in new), self.llm.price)

    def describe(self) -> dict[str, Any]:
        """Model, parameters and prompt, and the calls made so far."""
        calls = self.llm.ledger()
        return {
            "kind": "api",
            "model": self.llm.model,
            "base_url": self.llm.base_url,
            "parameters": self.llm.parameters,
            "prompt": self.prompt.version,
            "calls": calls.calls,
            "retries": calls.retries,
        }

    async def read(self, texts: Sequence[str], on_verdict: OnVerdict = lambda: None) -> list[Verdict | None]:
        """One verdict per text. Raises CircuitOpen when the endpoint does not work."""
        replies = await self.llm.ask_async(self._questions(texts), self._emotion, lambda _: on_verdict())
        return [self._verdict(reply) for reply in replies]

    def _questions(self, texts: Sequence[str]) -> list[Question]:
        return [
            Question(self.prompt.version, self._system, quote_as_json(text=text), self._schema, 10) for text in texts
        ]

    def _emotion(self, reply: str) -> str:
        """The emotion that a reply names, as it writes it; ValueError when the reply has none."""
        value = parse_json(reply)
        emotion = value.get("emotion") if isinstance(value, dict) else None
        if not isinstance(emotion, str):
            raise ValueError("no emotion in the reply")
        emotion.encode()  # raises ValueError for half of a surrogate pair, which no file could take
        return emotion

    def _verdict(self, reply: Reply) -> Verdict:
        if reply.status != "answered":
            return no_emotion(self.name, reply.status, reply.reason)
        emotion = self._emotion(reply.text)
        label = self.taxonomy.normalise(emotion)
        return Verdict(self.name, label, "ok") if label else no_emotion(self.name, "off_list", emotion[:200])
