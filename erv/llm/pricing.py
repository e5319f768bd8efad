"""Estimates of what questions will cost, before any is sent."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

_TOKENS_PER_MESSAGE = 6  # about what a chat template adds to each message


@dataclass(frozen=True)
class Price:
    """Price of a model; None where it is unknown."""

    input: float | None = None  # USD per million tokens of the prompt
    output: float | None = None  # USD per million tokens of the reply

    @property
    def is_known(self) -> bool:
        """Whether costs can be computed."""
        return self.input is not None and self.output is not None

    def cost(self, input_tokens: int, output_tokens: int) -> float:
        """Compute the cost in USD; an unknown price counts as 0."""
        return (input_tokens * (self.input or 0) + output_tokens * (self.output or 0)) / 1e6


@dataclass(frozen=True)
class Estimate:
    """Approximate size and cost of a set of requests, each sent once."""

    calls: int
    input_tokens: int
    output_tokens: int
    usd: float | None  # None when the price is unknown

    def __str__(self) -> str:
        cost = "unknown: set llm.price.input and llm.price.output" if self.usd is None else f"about {self.usd:.4f} USD"
        return (
            f"{self.calls} calls, about {self.input_tokens} tokens to read and {self.output_tokens} to write; cost {cost} "
            "without retries"
        )


def estimate(bodies: Iterable[tuple[dict[str, Any], int]], price: Price) -> Estimate:
    """Estimate the cost of requests, given as (request body, expected tokens of the reply)."""
    calls = input_tokens = output_tokens = 0
    for body, reply_tokens in bodies:
        calls += 1
        output_tokens += reply_tokens
        input_tokens += sum(approximate_tokens(m["content"]) + _TOKENS_PER_MESSAGE for m in body["messages"])
        input_tokens += approximate_tokens(json.dumps(body["response_format"]))
    usd = price.cost(input_tokens, output_tokens) if price.is_known else None
    return Estimate(calls, input_tokens, output_tokens, usd)


def approximate_tokens(text: str) -> int:
    """Estimate the number of tokens of a text: one for four ASCII characters, one for any other character."""
    ascii_characters = sum(character < "\x80" for character in text)
    return -(-ascii_characters // 4) + len(text) - ascii_characters
