"""Augmentation: sentences of emotions that the training text has too few of, written and then read again by the model (paper)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from erv.labeling.dedup import Distinct
from erv.labeling.labeler import PROMPTS, Labeller, OnReply, Row
from erv.llm.client import Chat, Question
from erv.llm.prompts import Prompt, data
from erv.taxonomy import named_taxonomy
from erv.utils.sanitize import parse_json

_AVOID = 8  # sentences shown as those that exist already


class Augmentation:
    """Write sentences for every class with fewer than `target` training sentences until it has as many.

    `input` is the labelled file that is augmented. A sentence is kept when it is no near-duplicate of another one (see
    `Distinct`) and the second call, which does not know what it was written for, names its class first; it gets the labels
    of that second call. `classes` limits it to some (paper: disgust, fear, contempt, disappointment, neutral,
    helplessness). After `rounds` a class may still be short, which the summary says.
    """

    def __init__(
        self, input: str, taxonomy: str, target: int, classes: list[str] | None = None, per_call: int = 10, rounds: int = 8,
        similarity: float = 0.7, prompt: str = "augment-1", label_prompt: str = "label-1", most: int = 2,
    ) -> None:  # fmt: skip
        for key, value in (("target", target), ("per_call", per_call), ("rounds", rounds)):
            if value < 1:
                raise ValueError(f"task.{key} is at least 1, got {value}")
        Distinct(similarity=similarity)  # ValueError for what is no similarity
        self.labeller = Labeller(named_taxonomy(taxonomy), label_prompt, most)
        self.labels = self.labeller.taxonomy.labels
        for label in classes or ():
            self.labeller.taxonomy.index(label)  # ValueError naming the nearest label
        self.target, self.per_call, self.rounds, self.similarity = target, per_call, rounds, similarity
        self.prompt = Prompt.load(PROMPTS, prompt)
        self.existing = read_labelled(input)
        counts = Counter(label for row in self.existing for label in row["labels"])
        self.before = {label: counts[label] for label in classes or self.labels}

    @property
    def clips(self) -> set[str]:
        """The clips that the existing texts were written about."""
        return {row["clip"] for row in self.existing if row.get("clip") is not None}

    def questions(self) -> list[Question]:
        """What the first round asks for; the second calls depend on what comes back."""
        return [question for _, question in self._wanted(self.before, 0)]

    def run(self, chat: Chat, on_reply: OnReply | None = None) -> tuple[list[Row], Row]:
        """The kept sentences as labelled rows, and a summary with what was rejected and why."""
        have, rejected = dict(self.before), Counter[str]()
        known = Distinct((row["text"] for row in self.existing), self.similarity)
        kept: list[Row] = []
        for number in range(self.rounds):
            wanted = self._wanted(have, number)
            if not wanted:
                break
            replies = chat.ask([question for _, question in wanted], sentences_of, on_reply)
            rejected.update(f"writing_{reply.status}" for reply in replies if reply.status != "answered")
            written = [
                (label, sentence)
                for (label, _), reply in zip(wanted, replies, strict=True)
                if reply.status == "answered"
                for sentence in sentences_of(reply.text)
            ]
            distinct = [(label, sentence) for label, sentence in written if known.add(sentence)]
            rejected["duplicate"] += len(written) - len(distinct)
            for row, reason in self._read_again(chat, distinct, on_reply):
                if reason is None and have[row["written_for"]] < self.target:
                    kept.append(row)
                    have[row["written_for"]] += 1
                else:
                    rejected[reason or "not needed"] += 1
        summary = {
            "before": self.before, "after": have, "target": self.target, "kept": len(kept), "rejected": dict(rejected),
            "short": sorted(label for label, n in have.items() if n < self.target),
            "prompts": [self.prompt.version, self.labeller.prompt.version],
        }  # fmt: skip
        return kept, summary

    def _read_again(
        self, chat: Chat, written: Sequence[tuple[str, str]], on_reply: OnReply | None
    ) -> list[tuple[Row, str | None]]:  # fmt: skip
        """Each sentence as a row, with why it is rejected, None if it is not."""
        replies = chat.ask([self.labeller.question(s) for _, s in written], self.labeller.named, on_reply)
        found: list[tuple[Row, str | None]] = []
        for (label, sentence), reply in zip(written, replies, strict=True):
            labels, status = self.labeller.labels(reply)
            reason = status if status != "ok" else None if labels[0] == label else "disagreed"
            row = {"text": sentence, "labels": labels, "status": status, "source": "augmented", "clip": None}
            found.append(({**row, "written_for": label}, reason))
        return found

    def _wanted(self, have: dict[str, int], number: int) -> list[tuple[str, Question]]:
        return [
            (label, self._question(label, f"{number}.{call}"))
            for label, n in have.items()
            for call in range(-(-(self.target - n) // self.per_call))
        ]

    def _question(self, label: str, variation: str) -> Question:
        """`variation` makes every request another one; without it the cache would answer with the same sentences."""
        texts = sorted({row["text"] for row in self.existing if label in row["labels"]})
        avoid = [texts[(hash_of(variation) + i) % len(texts)] for i in range(min(_AVOID, len(texts)))]
        user = data(emotion=label, sentences=self.per_call, variation=variation, avoid=avoid)
        schema: dict[str, Any] = {
            "type": "object",
            "properties": {"sentences": {"type": "array", "items": {"type": "string"}}},
            "required": ["sentences"],
            "additionalProperties": False,
        }
        return Question(self.prompt.version, self.prompt.fill(), user, schema, expected_tokens=10 + 25 * self.per_call)


def hash_of(variation: str) -> int:
    """A number that differs between requests and not between processes."""
    return sum(ord(character) * 31**i for i, character in enumerate(variation))


def sentences_of(reply: str) -> list[str]:
    """The sentences of a reply; ValueError when it cannot be an answer."""
    found = parse_json(reply)
    sentences = found.get("sentences") if isinstance(found, dict) else None
    if not isinstance(sentences, list) or not all(isinstance(s, str) for s in sentences):
        raise ValueError("no list of sentences")
    "".join(sentences).encode()  # half of a character, escaped, is a ValueError too: no file could take it
    stripped = [" ".join(sentence.split()) for sentence in sentences]
    return [sentence for sentence in stripped if sentence]


def read_labelled(file: str) -> list[Row]:
    """The labelled training rows of a file that `erv.label` wrote: status ok, and not of a held-out split."""
    path = Path(file)
    if not path.is_file():
        raise ValueError(f"{path}: no such file; set task.input to labels.jsonl of a run of erv.label")
    rows = [parse_json(line) for line in path.read_text().splitlines() if line.strip()]
    return [row for row in rows if row.get("status", "ok") == "ok" and row.get("split", "train") == "train"]
