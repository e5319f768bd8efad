"""Pseudo-labels: a language model says which emotions a text speaks of (paper, training data of the ERV)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from erv.labeling.texts import Text, read_texts
from erv.llm.client import Chat, Question
from erv.llm.prompts import Prompt, data
from erv.llm.reply_cache import Reply
from erv.taxonomy import Taxonomy, named_taxonomy
from erv.types import Status
from erv.utils.sanitize import parse_json

PROMPTS = Path(__file__).parent / "prompts"
Row = dict[str, Any]
OnReply = Callable[[Reply], None]


class Labeller:
    """Questions about texts and what the replies mean, for one taxonomy and one prompt."""

    def __init__(self, taxonomy: Taxonomy, prompt: str = "label-1", most: int = 2) -> None:
        if not 1 <= most <= len(taxonomy.labels):
            raise ValueError(f"task.most is how many emotions a text may have, 1 to {len(taxonomy.labels)}, got {most}")
        self.taxonomy, self.most = taxonomy, most
        self.prompt = Prompt.load(PROMPTS, prompt)
        self.system = self.prompt.fill(
            least="1", most=str(most), labels=", ".join(taxonomy.labels), neutral=taxonomy.neutral
        )
        item = {"type": "string", "enum": list(taxonomy.labels)}
        self.schema = {
            "type": "object",
            "properties": {"emotions": {"type": "array", "items": item, "minItems": 1, "maxItems": most}},
            "required": ["emotions"],
            "additionalProperties": False,
        }

    def question(self, text: str) -> Question:
        """The request for one text."""
        return Question(
            self.prompt.version, self.system, data(text=text), self.schema, expected_tokens=8 + 6 * self.most
        )

    def named(self, reply: str) -> list[str]:
        """The emotions that a reply names, as it writes them; ValueError when it cannot be an answer."""
        found = parse_json(reply)  # a JSONDecodeError is a ValueError
        names = found.get("emotions") if isinstance(found, dict) else None
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ValueError("no list of emotions")
        if not 1 <= len(names) <= self.most:
            raise ValueError(f"{len(names)} emotions where 1 to {self.most} are asked for")
        return names

    def labels(self, reply: Reply) -> tuple[list[str], Status]:
        """The labels and the status of a text; labels only when the status is "ok", and never any by default."""
        if reply.status != "answered":
            return [], "refused" if reply.status == "refused" else "failed"
        labels = [self.taxonomy.normalise(name) for name in self.named(reply.text)]
        known = list(dict.fromkeys(label for label in labels if label is not None))
        return ([], "off_list") if None in labels else (known, "ok")


class Labelling:
    """Label every text of a file.

    `input` is JSONL, JSON, CSV or Parquet; `field` names the text and `clip` the clip it was written about (see
    `erv.labeling.texts`). `unit="sentence"` labels each sentence by itself. `source` is what the rows are called in
    `verifier.data.sources`.
    """

    def __init__(
        self, input: str, taxonomy: str, source: str = "pseudo", field: str = "text", clip: str = "clip",
        unit: Literal["text", "sentence"] = "text", language: str = "en", prompt: str = "label-1", most: int = 2,
        limit: int | None = None,
    ) -> None:  # fmt: skip
        self.labeller = Labeller(named_taxonomy(taxonomy), prompt, most)
        self.source = source
        self.texts: list[Text] = read_texts(input, field, clip, unit, language)[:limit]

    @property
    def clips(self) -> set[str]:
        """The clips that the texts were written about."""
        return {text.clip for text in self.texts if text.clip is not None}

    def questions(self) -> list[Question]:
        """One for each text, repeated ones included."""
        return [self.labeller.question(text.text) for text in self.texts]

    def readable(self, reply: str) -> None:
        """Raise ValueError for a reply that cannot be an answer."""
        self.labeller.named(reply)

    def run(self, chat: Chat, on_reply: OnReply | None = None) -> tuple[list[Row], Row]:
        """The labelled rows, in the order of the input, and a summary."""
        return self.rows(chat.ask(self.questions(), self.readable, on_reply))

    def rows(self, replies: Sequence[Reply]) -> tuple[list[Row], Row]:
        """The rows of replies to `questions()`."""
        rows = []
        for text, reply in zip(self.texts, replies, strict=True):
            labels, status = self.labeller.labels(reply)
            row = {"text": text.text, "labels": labels, "status": status, "source": self.source, "clip": text.clip}
            rows.append(row if status == "ok" else {**row, "reason": reply.reason or reply.text})
        return rows, {**summary(rows), "prompt": self.labeller.prompt.version}


def summary(rows: Iterable[Mapping[str, Any]]) -> Row:
    """Counts of rows by status, and of labels among those that are ok."""
    rows = list(rows)
    return {
        "texts": len(rows),
        "distinct": len({row["text"] for row in rows}),
        "status": dict(Counter(row["status"] for row in rows)),
        "labels": dict(Counter(label for row in rows for label in row["labels"])),
    }
