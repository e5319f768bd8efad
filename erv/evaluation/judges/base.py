"""Who reads an explanation when we evaluate."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from erv.llm.pricing import Estimate
from erv.llm.prompts import Prompt
from erv.taxonomy import Taxonomy
from erv.types import Status, Verdict

PROMPTS = Path(__file__).parent / "prompts"
OnVerdict = Callable[[], None]


class Judge(Protocol):
    """Reads the text between the think tags and says which emotion it speaks of.

    `free` says that asking costs neither money nor minutes, so that curves and single sentences may be judged too; `partial`
    that it has a verdict on some texts only, as people do.
    """

    name: str
    free: bool
    partial: bool

    def require(self) -> None:
        """Raise ValueError for what would stop it later: a key that is not set, a file that is not there."""

    def waiting(self, texts: Sequence[str]) -> int:
        """How many of `texts` it would have to be asked about: what is not cached."""

    def cost(self, texts: Sequence[str]) -> Estimate | None:
        """What asking about `texts` would cost; None where nothing is paid for."""

    async def read(self, texts: Sequence[str], on_verdict: OnVerdict = lambda: None) -> list[Verdict | None]:
        """One verdict per text, in order; None for a text that it was never meant to see (people rate some only).

        `on_verdict` is called whenever one more of the `waiting` ones is there.
        """

    def describe(self) -> dict[str, Any]:
        """What it is, for metrics.json: model, prompt version, the files it reads."""


def prompt_for(taxonomy: Taxonomy, name: str) -> tuple[Prompt, str]:
    """The prompt `name` and its text for the labels of `taxonomy`."""
    prompt = Prompt.load(PROMPTS, name)
    return prompt, prompt.fill(labels=", ".join(taxonomy.labels), neutral=taxonomy.neutral)


def ask(
    judges: Sequence[Judge], texts: Sequence[str], on_verdict: Callable[[str], None] = lambda name: None
) -> dict[str, list[Verdict | None]]:  # fmt: skip
    """The verdicts of every judge, all asked at the same time, by name; `on_verdict` gets the judge's name.

    A text without a word explains nothing, so no judge is asked: its status is "off_list". When a judge raises, the others
    finish first, so that what they were paid for is kept.
    """
    spoken = [text for text in texts if text.strip()]

    async def every() -> list[Any]:
        readings = (judge.read(spoken, lambda name=judge.name: on_verdict(name)) for judge in judges)  # type: ignore[misc]
        return await asyncio.gather(*readings, return_exceptions=True)

    found = asyncio.run(every())
    for result in found:
        if isinstance(result, BaseException):
            raise result
    return {judge.name: _with_silent(judge, texts, verdicts) for judge, verdicts in zip(judges, found, strict=True)}


def _with_silent(judge: Judge, texts: Sequence[str], verdicts: Sequence[Verdict | None]) -> list[Verdict | None]:
    rest = iter(verdicts)
    silent = None if judge.partial else Verdict(judge.name, None, "off_list", "there is no explanation")
    return [next(rest) if text.strip() else silent for text in texts]


def refused(name: str, status: Status, reason: str) -> Verdict:
    """A verdict without an emotion."""
    return Verdict(name, None, status, reason)
