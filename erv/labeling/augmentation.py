"""Text augmentation: sentences of emotions that the training text has too few of, written and verified by a model (paper)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from erv.labeling.dedup import NearDuplicateFilter
from erv.labeling.labeler import PROMPTS, LabelPrompt, Row
from erv.llm.client import Chat, OnReply, Question
from erv.llm.prompts import Prompt, quote_as_json
from erv.taxonomy import named_taxonomy
from erv.utils.documents import read_json_lines
from erv.utils.sanitize import parse_json

_EXAMPLES = 8  # existing sentences that a request shows, not to be written again
_SCHEMA = {
    "type": "object",
    "properties": {"sentences": {"type": "array", "items": {"type": "string"}}},
    "required": ["sentences"],
    "additionalProperties": False,
}


class TextAugmentation:
    """Writes sentences for every class with fewer than `target` training sentences until it has as many.

    Each round has two calls. The first writes sentences of a class; near-duplicates are dropped. The second labels each of
    them without being told what it was written for; a sentence is kept, with the labels of the second call, if its first
    label is the class. After `rounds` a class may still be short, which the summary says.

    Args:
        input: labels.jsonl of a run of `erv.label`, which is augmented.
        taxonomy: Name of a built-in taxonomy.
        target: Training sentences per class.
        classes: Classes to augment (default: all; paper: disgust, fear, contempt, disappointment, neutral, helplessness).
        per_call: Sentences asked for in one request.
        rounds: Most rounds.
        similarity: Jaccard index in (0, 1] from which two sentences are near-duplicates.
        prompt: Name of the writing prompt.
        label_prompt: Name of the labeling prompt.
        most: Most emotions per sentence.
    """

    def __init__(
        self,
        input: str,
        taxonomy: str,
        target: int,
        classes: list[str] | None = None,
        per_call: int = 10,
        rounds: int = 8,
        similarity: float = 0.7,
        prompt: str = "augment-1",
        label_prompt: str = "label-1",
        most: int = 2,
    ) -> None:
        for key, value in (("target", target), ("per_call", per_call), ("rounds", rounds)):
            if value < 1:
                raise ValueError(f"task.{key} is at least 1, got {value}")
        NearDuplicateFilter(similarity=similarity)  # raises ValueError for a similarity out of range
        self.label_prompt = LabelPrompt(named_taxonomy(taxonomy), label_prompt, most)
        labels = self.label_prompt.taxonomy.labels
        for label in classes or ():
            self.label_prompt.taxonomy.index(label)  # raises ValueError that names the nearest label
        self.target, self.per_call, self.rounds, self.similarity = target, per_call, rounds, similarity
        self.prompt = Prompt.load(PROMPTS, prompt)
        self.existing = read_training_rows(input)
        counts = Counter(label for row in self.existing for label in row["labels"])
        self.before = {label: counts[label] for label in classes or labels}  # class -> training sentences

    @property
    def clips(self) -> set[str]:
        """The clips that the existing texts were written about."""
        return {row["clip"] for row in self.existing if row.get("clip") is not None}

    def questions(self) -> list[Question]:
        """The writing requests of the first round; later requests depend on the replies."""
        return [question for _, question in self._writing_requests(self.before, 0)]

    def run(self, chat: Chat, on_reply: OnReply | None = None) -> tuple[list[Row], Row]:
        """Write sentences; returns those kept as labelled rows, and a summary with the number rejected by reason."""
        counts, rejected = dict(self.before), Counter[str]()
        distinct_texts = NearDuplicateFilter((row["text"] for row in self.existing), self.similarity)
        rows: list[Row] = []
        for number in range(self.rounds):
            requests = self._writing_requests(counts, number)
            if not requests:
                break
            replies = chat.ask([question for _, question in requests], parse_sentences, on_reply)
            rejected.update(f"writing_{reply.status}" for reply in replies if reply.status != "answered")
            written = [
                (label, sentence)
                for (label, _), reply in zip(requests, replies, strict=True)
                if reply.status == "answered"
                for sentence in parse_sentences(reply.text)
            ]
            distinct = [(label, sentence) for label, sentence in written if distinct_texts.add(sentence)]
            rejected["duplicate"] += len(written) - len(distinct)
            for row, reason in self._verify(chat, distinct, on_reply):
                if reason is None and counts[row["written_for"]] < self.target:
                    rows.append(row)
                    counts[row["written_for"]] += 1
                else:
                    rejected[reason or "not needed"] += 1
        summary = {
            "before": self.before,
            "after": counts,
            "target": self.target,
            "kept": len(rows),
            "rejected": dict(rejected),
            "short": sorted(label for label, n in counts.items() if n < self.target),
            "prompts": [self.prompt.version, self.label_prompt.template.version],
        }
        return rows, summary

    def _verify(
        self,
        chat: Chat,
        written: Sequence[tuple[str, str]],
        on_reply: OnReply | None,
    ) -> list[tuple[Row, str | None]]:
        """Label written sentences, given as (class, sentence); returns each as a row with the reason it is rejected for."""
        questions = [self.label_prompt.question(sentence) for _, sentence in written]
        replies = chat.ask(questions, self.label_prompt.parse, on_reply)
        verified: list[tuple[Row, str | None]] = []
        for (label, sentence), reply in zip(written, replies, strict=True):
            labels, status = self.label_prompt.labels(reply)
            reason = status if status != "ok" else None if labels[0] == label else "disagreed"
            row = {"text": sentence, "labels": labels, "status": status, "source": "augmented", "clip": None}
            verified.append(({**row, "written_for": label}, reason))
        return verified

    def _writing_requests(self, counts: dict[str, int], number: int) -> list[tuple[str, Question]]:
        """The requests of a round, as (class, question): as many for each class as its missing sentences need."""
        return [
            (label, self._writing_request(label, f"{number}.{call}"))
            for label, n in counts.items()
            for call in range(-(-(self.target - n) // self.per_call))  # rounded up
        ]

    def _writing_request(self, label: str, variation: str) -> Question:
        """Make one request; `variation` makes it differ from others, which the cache would answer with the same sentences."""
        texts = sorted({row["text"] for row in self.existing if label in row["labels"]})
        examples = [texts[(_stable_hash(variation) + i) % len(texts)] for i in range(min(_EXAMPLES, len(texts)))]
        user = quote_as_json(emotion=label, sentences=self.per_call, variation=variation, avoid=examples)
        return Question(self.prompt.version, self.prompt.fill(), user, _SCHEMA, expected_tokens=10 + 25 * self.per_call)


def _stable_hash(text: str) -> int:
    """Hash a text to the same number in every process, unlike `hash`."""
    return sum(ord(character) * 31**i for i, character in enumerate(text))


def parse_sentences(reply: str) -> list[str]:
    """Read the sentences in a reply; ValueError if it cannot be an answer."""
    content = parse_json(reply)
    sentences = content.get("sentences") if isinstance(content, dict) else None
    if not isinstance(sentences, list) or not all(isinstance(s, str) for s in sentences):
        raise ValueError("no list of sentences")
    "".join(sentences).encode()  # an escaped lone surrogate is a ValueError too: it could not be stored
    stripped = [" ".join(sentence.split()) for sentence in sentences]
    return [sentence for sentence in stripped if sentence]


def read_training_rows(file: str) -> list[Row]:
    """Read the labelled training rows of a file of `erv.label`: status ok, and not of a held-out split."""
    path = Path(file)
    if not path.is_file():
        raise ValueError(f"{path}: no such file; set task.input to labels.jsonl of a run of erv.label")
    rows = list(read_json_lines(path))
    return [row for row in rows if row.get("status", "ok") == "ok" and row.get("split", "train") == "train"]
