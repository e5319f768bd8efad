"""Replies on disk, so that none is paid for twice, and a ledger of the calls that were made for them."""

from __future__ import annotations

import sqlite3
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

ReplyStatus = Literal["answered", "refused", "failed"]


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back for a question. `text` is the model's text when it answered; `reason` says why it did not.

    `input_tokens` and `output_tokens` are what the endpoint counted, 0 where it did not say.
    """

    status: ReplyStatus
    text: str = ""
    reason: str = ""
    input_tokens: int = 0
    output_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Ledger:
    """Counts over a set of questions: calls sent, questions they were sent for, and calls that never came back."""

    calls: int
    questions: int
    interrupted: int

    @property
    def retries(self) -> int:
        """Calls beyond the first of a question."""
        return self.calls - self.questions


class ReplyCache:
    """A SQLite file. Every write is committed at once: what was paid for survives a process that is killed.

    A call is written down before it is sent, so that one that was lost with its process is known as such.
    """

    def __init__(self, file: str) -> None:
        Path(file).parent.mkdir(parents=True, exist_ok=True)
        self._db = sqlite3.connect(file, timeout=30, isolation_level=None)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute(
            "CREATE TABLE IF NOT EXISTS replies (key TEXT PRIMARY KEY, status TEXT NOT NULL, text TEXT NOT NULL, reason TEXT "
            "NOT NULL, input_tokens INTEGER NOT NULL, output_tokens INTEGER NOT NULL)"
        )
        self._db.execute(
            "CREATE TABLE IF NOT EXISTS calls (id INTEGER PRIMARY KEY, key TEXT NOT NULL, sent REAL NOT NULL, outcome TEXT)"
        )
        self._db.execute("CREATE INDEX IF NOT EXISTS calls_of ON calls (key)")

    def get(self, key: str) -> Reply | None:
        """The reply that was stored for `key`."""
        row = self._db.execute(
            "SELECT status, text, reason, input_tokens, output_tokens FROM replies WHERE key = ?", (key,)
        ).fetchone()
        return None if row is None else Reply(*row)

    def put(self, key: str, reply: Reply) -> None:
        """Store a reply that is final: an answer or a refusal."""
        values = (key, reply.status, reply.text, reply.reason, reply.input_tokens, reply.output_tokens)
        self._db.execute("INSERT OR REPLACE INTO replies VALUES (?, ?, ?, ?, ?, ?)", values)

    def sent(self, key: str) -> int:
        """Note that a call for `key` is about to be sent; returns its number."""
        number = self._db.execute("INSERT INTO calls (key, sent) VALUES (?, ?)", (key, time.time())).lastrowid
        assert number is not None
        return number

    def came_back(self, number: int, outcome: str) -> None:
        """Note how a call ended."""
        self._db.execute("UPDATE calls SET outcome = ? WHERE id = ?", (outcome, number))

    def ledger(self, keys: set[str]) -> Ledger:
        """The calls made for `keys`, in this process and in earlier ones."""
        rows = [row for row in self._db.execute("SELECT key, outcome FROM calls") if row[0] in keys]
        return Ledger(len(rows), len({key for key, _ in rows}), sum(outcome is None for _, outcome in rows))
