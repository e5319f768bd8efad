"""The Batch API's files: requests to upload, results to read. Half the price, a day's time, no connection held open."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from erv.llm.client import Chat, Question, Readable
from erv.llm.reply_cache import Reply
from erv.llm.transport import read_completion
from erv.utils.sanitize import parse_json

MOST_REQUESTS = 50_000  # of one file, as OpenAI documents it
MOST_BYTES = 190_000_000  # the documented limit is 200 MB


def write_requests(chat: Chat, questions: Sequence[Question], folder: Path) -> list[Path]:
    """Write requests-1.jsonl, requests-2.jsonl, … for the questions without a reply; the key is the custom_id."""
    for old in folder.glob("requests-*.jsonl"):
        old.unlink()
    parts: list[list[str]] = []
    size = MOST_BYTES
    for key, question in chat.new(questions).items():
        row = {"custom_id": key, "method": "POST", "url": "/v1/chat/completions", "body": chat.body(question)}
        line = json.dumps(row, ensure_ascii=False) + "\n"
        if size + len(line.encode()) > MOST_BYTES or len(parts[-1]) == MOST_REQUESTS:
            parts.append([])
            size = 0
        parts[-1].append(line)
        size += len(line.encode())
    files = [folder / f"requests-{number}.jsonl" for number in range(1, len(parts) + 1)]
    for file, lines in zip(files, parts, strict=True):
        file.write_text("".join(lines))
    return files


def read_results(
    chat: Chat, questions: Sequence[Question], files: Sequence[Path], readable: Readable
) -> dict[str, str]:
    """Put the answers of result files into the cache; returns why for those that are none, by key.

    Results of other questions are refused: they belong to another input, prompt, model or taxonomy.
    """
    wanted = {chat.key(q) for q in questions}
    failed: dict[str, str] = {}
    for file in files:
        for number, line in enumerate(file.read_text().splitlines(), start=1):
            row = parse_json(line)
            if row["custom_id"] not in wanted:
                raise ValueError(
                    f"{file}:{number}: custom_id {row['custom_id'][:16]}… is none of this run's questions; give the results of "
                    "the requests that this very command wrote"
                )
            response = row.get("response") or {}
            if response.get("status_code") != 200:
                reply = Reply("failed", reason=f"HTTP {response.get('status_code')}: {row.get('error')}")
            else:
                reply = read_completion(response["body"], readable)
            if reply.status == "failed":
                failed[row["custom_id"]] = reply.reason
            else:
                chat.cache.put(row["custom_id"], reply)
    return failed
