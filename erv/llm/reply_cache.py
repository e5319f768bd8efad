"""Replies on disk, so that none is paid for twice, and a log of the calls that were made for them."""

from __future__ import annotations

import sqlite3
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

ReplyStatus = Literal["answered", "refused", "failed"]


@dataclass(frozen=True, slots=True)
class Reply:
    """The reply to a question."""

    status: ReplyStatus
    text: str = ""  # the model's text if it answered
    reason: str = ""  # why it did not answer
    input_tokens: int = 0  # as the endpoint counts them, 0 where it does not say
    output_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Ledger:
    """Counts of calls over a set of questions."""

    calls: int  # calls sent
    questions: int  # questions that a call was sent for
    interrupted: int  # calls without an outcome: their process ended first

    @property
    def retries(self) -> int:
        """Calls beyond the first of a question."""
        return self.calls - self.questions


class ReplyCache:
    """A SQLite file of replies and calls. Every write is committed at once, so that a killed process loses no paid reply.

    A call is recorded before it is sent, so that one that was lost with its process can be counted.
    """

    def __init__(self, file: str) -> None:
        Path(file).parent.mkdir(parents=True, exist_ok=True)
        # isolation_level None is autocommit; WAL and the time-out let several processes share the file
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
        """The reply stored for `key`."""
        row = self._db.execute(
            "SELECT status, text, reason, input_tokens, output_tokens FROM replies WHERE key = ?", (key,)
        ).fetchone()
        return None if row is None else Reply(*row)

    def put(self, key: str, reply: Reply) -> None:
        """Store a final reply: an answer or a refusal."""
        values = (key, reply.status, reply.text, reply.reason, reply.input_tokens, reply.output_tokens)
        self._db.execute("INSERT OR REPLACE INTO replies VALUES (?, ?, ?, ?, ?, ?)", values)

    def record_call(self, key: str) -> int:
        """Record that a call for `key` is about to be sent; returns the call's id."""
        call = self._db.execute("INSERT INTO calls (key, sent) VALUES (?, ?)", (key, time.time())).lastrowid
        assert call is not None
        return call

    def record_outcome(self, call: int, outcome: str) -> None:
        """Record how a call ended."""
        self._db.execute("UPDATE calls SET outcome = ? WHERE id = ?", (outcome, call))

    def ledger(self, keys: set[str]) -> Ledger:
        """Count the calls made for `keys`, in this process and in earlier ones."""
        rows = [row for row in self._db.execute("SELECT key, outcome FROM calls") if row[0] in keys]
        return Ledger(len(rows), len({key for key, _ in rows}), sum(outcome is None for _, outcome in rows))
