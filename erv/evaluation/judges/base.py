"""The Judge protocol, and asking several judges at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from erv.llm.pricing import Estimate
from erv.llm.prompts import Prompt
from erv.taxonomy import Taxonomy
from erv.types import Status, Verdict

PROMPTS = Path(__file__).parent / "prompts"
OnVerdict = Callable[[], None]


class Judge(Protocol):
    """Reads the text between the think tags and names the emotion that it speaks of."""

    name: str
    free: bool  # costs neither money nor minutes, so that it may judge learning curves and single sentences too
    partial: bool  # has a verdict on some texts only, as people do

    def require(self) -> None:
        """Raise ValueError for what would stop it later: a key that is not set, a file that is not there."""

    def pending(self, texts: Sequence[str]) -> int:
        """How many of `texts` have no cached verdict."""

    def cost(self, texts: Sequence[str]) -> Estimate | None:
        """What asking about `texts` would cost; None where nothing is paid for."""

    async def read(self, texts: Sequence[str], on_verdict: OnVerdict = lambda: None) -> list[Verdict | None]:
        """One verdict per text, in order; None for a text that it was never shown (people rate some only).

        `on_verdict` is called whenever one more of the `pending` verdicts has come.
        """

    def describe(self) -> dict[str, Any]:
        """Its identity for metrics.json: model, prompt version, the files it reads."""


def prompt_for(taxonomy: Taxonomy, name: str) -> tuple[Prompt, str]:
    """Load the prompt `name`, and fill in the labels of `taxonomy`."""
    prompt = Prompt.load(PROMPTS, name)
    return prompt, prompt.fill(labels=", ".join(taxonomy.labels), neutral=taxonomy.neutral)


def ask_judges(
    judges: Sequence[Judge],
    texts: Sequence[str],
    on_verdict: Callable[[str], None] = lambda name: None,
) -> dict[str, list[Verdict | None]]:
    """Ask all judges at the same time; returns the verdicts of each by its name. `on_verdict` is called with a judge's name.

    An empty text explains nothing, so no judge is asked: its status is "off_list". When a judge raises, the others finish first,
    so that what was paid for is cached.
    """
    nonempty = [text for text in texts if text.strip()]

    async def ask_all() -> list[Any]:
        readings = (judge.read(nonempty, partial(on_verdict, judge.name)) for judge in judges)
        return await asyncio.gather(*readings, return_exceptions=True)

    results = asyncio.run(ask_all())
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return {judge.name: _with_empty(judge, texts, verdicts) for judge, verdicts in zip(judges, results, strict=True)}


def _with_empty(judge: Judge, texts: Sequence[str], verdicts: Sequence[Verdict | None]) -> list[Verdict | None]:
    """One verdict per text from those of the nonempty ones."""
    of_nonempty = iter(verdicts)
    of_empty = None if judge.partial else no_emotion(judge.name, "off_list", "there is no explanation")
    return [next(of_nonempty) if text.strip() else of_empty for text in texts]


def no_emotion(judge: str, status: Status, reason: str) -> Verdict:
    """A verdict without an emotion, and why."""
    return Verdict(judge, None, status, reason)
