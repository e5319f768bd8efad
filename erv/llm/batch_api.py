"""Files of the Batch API: requests to upload, results to read. It costs half the price and takes up to a day."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from erv.errors import UserError
from erv.llm.client import Chat, Question, Validate
from erv.llm.reply_cache import Reply
from erv.llm.transport import read_completion
from erv.utils.sanitize import parse_json

MAX_REQUESTS = 50_000  # per file, as OpenAI documents it
MAX_BYTES = 190_000_000  # per file; the documented limit is 200 MB


class ForeignResults(UserError):
    """A result file answers other questions than those of this run."""


def write_requests(chat: Chat, questions: Sequence[Question], folder: Path) -> list[Path]:
    """Write requests-1.jsonl, requests-2.jsonl, … with the unanswered questions; a question's key is its custom_id.

    Files of an earlier call are deleted first. Returns the files written.
    """
    for file in folder.glob("requests-*.jsonl"):
        file.unlink()
    parts: list[list[str]] = []  # lines of each file
    size = MAX_BYTES  # bytes of the last part; full, so that the first line begins a part
    for key, question in chat.unanswered(questions).items():
        row = {"custom_id": key, "method": "POST", "url": "/v1/chat/completions", "body": chat.body(question)}
        line = json.dumps(row, ensure_ascii=False) + "\n"
        if size + len(line.encode()) > MAX_BYTES or len(parts[-1]) == MAX_REQUESTS:
            parts.append([])
            size = 0
        parts[-1].append(line)
        size += len(line.encode())
    files = [folder / f"requests-{number}.jsonl" for number in range(1, len(parts) + 1)]
    for file, lines in zip(files, parts, strict=True):
        file.write_text("".join(lines))
    return files


def read_results(
    chat: Chat,
    questions: Sequence[Question],
    files: Sequence[Path],
    validate: Validate,
) -> dict[str, str]:
    """Put the answers in result files into the cache of `chat`.

    Returns the reason of each result that is no answer, by key.

    Raises:
        ForeignResults: For a result of another question: it belongs to another input, prompt, model or taxonomy.
    """
    keys = {chat.key(q) for q in questions}
    failed: dict[str, str] = {}
    for file in files:
        for number, line in enumerate(file.read_text().split("\n"), start=1):  # lines of JSONL end at \n only
            if not line.strip():
                continue
            row = parse_json(line)
            if row["custom_id"] not in keys:
                raise ForeignResults(
                    f"{file}:{number}: custom_id {row['custom_id'][:16]}… is none of this run's questions; give the results of "
                    "the requests that this very command wrote"
                )
            response = row.get("response") or {}
            if response.get("status_code") != 200:
                reply = Reply("failed", reason=f"HTTP {response.get('status_code')}: {row.get('error')}")
            else:
                reply = read_completion(response["body"], validate)
            if reply.status == "failed":
                failed[row["custom_id"]] = reply.reason
            else:
                chat.cache.put(row["custom_id"], reply)
    return failed
