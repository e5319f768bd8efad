"""A judge behind an OpenAI-compatible endpoint: GPT, Gemini, a vLLM of one's own (paper, evaluation)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from erv.evaluation.judges.base import OnVerdict, prompt_for, refused
from erv.llm.client import Chat, Question
from erv.llm.pricing import Estimate, estimate
from erv.llm.prompts import quote_as_json
from erv.llm.reply_cache import Reply
from erv.taxonomy import Taxonomy
from erv.types import Verdict
from erv.utils.sanitize import parse_json


class APIJudge:
    """Asks a model for the one emotion that an explanation speaks of.

    The reply is held to the taxonomy's labels by a JSON schema. It is remembered by model, parameters, prompt version and
    text, so that a second evaluation asks nothing. A reply off the list, a refusal and a failed call are said as such:
    none of them ever becomes an emotion.
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

    def waiting(self, texts: Sequence[str]) -> int:
        """How many have no reply yet."""
        return len(self.llm.unanswered(self._questions(texts)))

    def cost(self, texts: Sequence[str]) -> Estimate:
        """Calls, tokens and USD for the texts that have no reply yet."""
        new = self.llm.unanswered(self._questions(texts)).values()
        return estimate(((self.llm.body(q), q.expected_tokens) for q in new), self.llm.price)

    def describe(self) -> dict[str, Any]:
        """Model, parameters and prompt, and the calls made so far."""
        calls = self.llm.ledger()
        return {
            "kind": "api", "model": self.llm.model, "base_url": self.llm.base_url, "parameters": self.llm.parameters,
            "prompt": self.prompt.version, "calls": calls.calls, "retries": calls.retries,
        }  # fmt: skip

    async def read(self, texts: Sequence[str], on_verdict: OnVerdict = lambda: None) -> list[Verdict | None]:
        """One verdict per text. Raises CircuitOpen when the endpoint does not work."""
        replies = await self.llm.ask_async(self._questions(texts), self._emotion, lambda _: on_verdict())
        return [self._verdict(reply) for reply in replies]

    def _questions(self, texts: Sequence[str]) -> list[Question]:
        return [
            Question(self.prompt.version, self._system, quote_as_json(text=text), self._schema, 10) for text in texts
        ]

    def _emotion(self, reply: str) -> str:
        """What a reply names, as it writes it; ValueError when it cannot be an answer."""
        found = parse_json(reply)  # a JSONDecodeError is a ValueError
        emotion = found.get("emotion") if isinstance(found, dict) else None
        if not isinstance(emotion, str):
            raise ValueError("no emotion in the reply")
        emotion.encode()  # half of a character, escaped, is a ValueError too: no file could take it
        return emotion

    def _verdict(self, reply: Reply) -> Verdict:
        if reply.status != "answered":
            return refused(self.name, reply.status, reply.reason)
        named = self._emotion(reply.text)
        label = self.taxonomy.normalise(named)
        return Verdict(self.name, label, "ok") if label else refused(self.name, "off_list", named[:200])
