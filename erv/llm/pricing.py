"""What questions will cost, before any is sent."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

_PER_MESSAGE = 6  # tokens that a chat template adds to each of two messages, about


@dataclass(frozen=True)
class Price:
    """USD per million tokens of the prompt and of the reply; None when unknown."""

    input: float | None = None
    output: float | None = None

    @property
    def known(self) -> bool:
        """Whether costs can be told."""
        return self.input is not None and self.output is not None

    def of(self, input_tokens: int, output_tokens: int) -> float:
        """USD; 0 when the price is unknown."""
        return (input_tokens * (self.input or 0) + output_tokens * (self.output or 0)) / 1e6


@dataclass(frozen=True)
class Estimate:
    """How many calls are needed and about how many tokens they take; `usd` is None when the price is unknown."""

    calls: int
    input_tokens: int
    output_tokens: int
    usd: float | None

    def __str__(self) -> str:
        cost = "unknown: set llm.price.input and llm.price.output" if self.usd is None else f"about {self.usd:.4f} USD"
        return (
            f"{self.calls} calls, about {self.input_tokens} tokens to read and {self.output_tokens} to write; cost {cost} "
            "without retries"
        )


def estimate(bodies: Iterable[tuple[dict[str, Any], int]], price: Price) -> Estimate:
    """The estimate for requests, each with the expected tokens of its reply."""
    calls = read = written = 0
    for body, expected in bodies:
        calls, written = calls + 1, written + expected
        read += sum(tokens(message["content"]) + _PER_MESSAGE for message in body["messages"])
        read += tokens(json.dumps(body["response_format"]))
    return Estimate(calls, read, written, price.of(read, written) if price.known else None)


def tokens(text: str) -> int:
    """About how many tokens a text has: one for four ASCII characters, one for any other character."""
    ascii_characters = sum(character < "\x80" for character in text)
    return -(-ascii_characters // 4) + len(text) - ascii_characters
