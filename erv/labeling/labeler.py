"""Pseudo-labels: a language model names the emotions that a text expresses (paper, training data of the ERV)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from erv.labeling.texts import Text, read_texts
from erv.llm.client import Chat, OnReply, Question
from erv.llm.prompts import Prompt, quote_as_json
from erv.llm.reply_cache import Reply
from erv.taxonomy import Taxonomy, named_taxonomy
from erv.types import Status
from erv.utils.sanitize import parse_json

PROMPTS = Path(__file__).parent / "prompts"
Row = dict[str, Any]


class LabelPrompt:
    """The labeling prompt for one taxonomy: makes the request for a text and reads the labels in a reply.

    Args:
        taxonomy: Labels to choose from.
        prompt: Name of a file in prompts/.
        most: Most emotions per text.
    """

    def __init__(self, taxonomy: Taxonomy, prompt: str = "label-1", most: int = 2) -> None:
        if not 1 <= most <= len(taxonomy.labels):
            raise ValueError(f"task.most is how many emotions a text may have, 1 to {len(taxonomy.labels)}, got {most}")
        self.taxonomy, self.most = taxonomy, most
        self.template = Prompt.load(PROMPTS, prompt)
        self.system = self.template.fill(
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
        """Make the request for one text."""
        return Question(
            self.template.version,
            self.system,
            quote_as_json(text=text),
            self.schema,
            expected_tokens=8 + 6 * self.most,
        )

    def parse(self, reply: str) -> list[str]:
        """Read the emotions in a reply, as it spells them; ValueError if it cannot be an answer."""
        content = parse_json(reply)  # a JSONDecodeError is a ValueError
        names = content.get("emotions") if isinstance(content, dict) else None
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ValueError("no list of emotions")
        if not 1 <= len(names) <= self.most:
            raise ValueError(f"{len(names)} emotions where 1 to {self.most} are asked for")
        return names

    def labels(self, reply: Reply) -> tuple[list[str], Status]:
        """Read the labels of the taxonomy in a reply, and the status; no labels unless the status is "ok"."""
        if reply.status != "answered":
            return [], "refused" if reply.status == "refused" else "failed"
        labels: list[str] = []
        for name in self.parse(reply.text):
            label = self.taxonomy.normalise(name)
            if label is None:
                return [], "off_list"
            if label not in labels:
                labels.append(label)
        return labels, "ok"


class Labeler:
    """Labels every text of a file.

    Args:
        input: JSONL, JSON, CSV, TSV or Parquet (`read_texts`).
        taxonomy: Name of a built-in taxonomy.
        source: Name of the rows in `verifier.data.sources`.
        field: Column of the text.
        clip: Column of the id of the clip that the text was written about.
        unit: "text" labels each text as a whole, "sentence" each of its sentences.
        language: ISO 639-1 code of the texts.
        prompt: Name of the labeling prompt.
        most: Most emotions per text.
        limit: Number of texts, the first ones (default: all).
    """

    def __init__(
        self,
        input: str,
        taxonomy: str,
        source: str = "pseudo",
        field: str = "text",
        clip: str = "clip",
        unit: Literal["text", "sentence"] = "text",
        language: str = "en",
        prompt: str = "label-1",
        most: int = 2,
        limit: int | None = None,
    ) -> None:
        self.prompt = LabelPrompt(named_taxonomy(taxonomy), prompt, most)
        self.source = source
        self.texts: list[Text] = read_texts(input, field, clip, unit, language)[:limit]

    @property
    def clips(self) -> set[str]:
        """The clips that the texts were written about."""
        return {text.clip for text in self.texts if text.clip is not None}

    def questions(self) -> list[Question]:
        """The request for each text, repeated ones included."""
        return [self.prompt.question(text.text) for text in self.texts]

    def validate(self, reply: str) -> None:
        """Raise ValueError for a reply that cannot be an answer."""
        self.prompt.parse(reply)

    def run(self, chat: Chat, on_reply: OnReply | None = None) -> tuple[list[Row], Row]:
        """Label the texts; returns the rows in the order of the input, and a summary."""
        replies = chat.ask(self.questions(), self.validate, on_reply)
        rows = []
        for text, reply in zip(self.texts, replies, strict=True):
            labels, status = self.prompt.labels(reply)
            row = {"text": text.text, "labels": labels, "status": status, "source": self.source, "clip": text.clip}
            rows.append(row if status == "ok" else {**row, "reason": reply.reason or reply.text})
        return rows, {**summary(rows), "prompt": self.prompt.template.version}


def summary(rows: Sequence[Mapping[str, Any]]) -> Row:
    """Count rows by status, and labels among those that have any."""
    return {
        "texts": len(rows),
        "distinct": len({row["text"] for row in rows}),
        "status": dict(Counter(row["status"] for row in rows)),
        "labels": dict(Counter(label for row in rows for label in row["labels"])),
    }
