"""`endpoint.py SEED FILE`: a stand-in for a language model, on the loopback, that speaks the embedded corpus' grammar.

It serves the OpenAI protocol, so that erv.label runs in full without a network or a key. Asked to write, it draws sentences of
the emotion from phrases that the verifier's training text may hold; asked to label, it looks for the grammar's phrases, and
names a wrong emotion for 8 % of the texts. Its address is written to FILE once it listens.
"""

import hashlib
import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from erv.data.datasets.synthetic import grammar
from erv.data.datasets.synthetic.labels import NOISE, clean_rows

FIRST_STREAM = 1000  # beyond the streams that the corpus itself draws from


def number(text: str, below: int) -> int:
    """A number that depends on `text` alone."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") % below


def write(seed: int, user: dict) -> dict:
    """Sentences of the emotion that is asked for, others than in other requests."""
    stream = FIRST_STREAM + number(json.dumps(user), 10**6)
    drawn = clean_rows(seed, 60 * user["sentences"], stream, "train")
    fitting = [row["text"] for row in drawn if row["labels"] == [user["emotion"]]]
    return {"sentences": fitting[: user["sentences"]]}


def label(text: str) -> dict:
    """The emotions whose phrases stand in the text, in their order; none means neutral."""
    low = text.lower()
    phrases = {
        e: [*p, *grammar.EXTRA_FACE_CUES[e]] for e, p in grammar.phrases().items() if e in grammar.EXTRA_FACE_CUES
    }
    places = {
        e: min((low.find(p.lower()) for p in every if p.lower() in low), default=-1) for e, every in phrases.items()
    }
    found = sorted((e for e, place in places.items() if place >= 0), key=lambda e: places[e])[:2] or ["neutral"]
    if number(text, 1000) < 1000 * NOISE:
        found = [[e for e in (*grammar.EMOTIONS, "neutral") if e not in found][number(text[::-1], 5)]]
    return {"emotions": found}


def serve(seed: int, file: str) -> None:
    """Answer until the process ends."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            """Say nothing."""

        def do_POST(self) -> None:
            """One completion."""
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            user = json.loads(request["messages"][1]["content"])
            content = json.dumps(label(user["text"]) if "text" in user else write(seed, user))
            message = {"role": "assistant", "content": content}
            usage = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
            body = {"id": "x", "object": "chat.completion", "created": 0, "model": "grammar", "usage": usage,
                    "choices": [{"index": 0, "finish_reason": "stop", "message": message}]}  # fmt: skip
            raw = json.dumps(body).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Path(file).write_text(f"http://127.0.0.1:{server.server_address[1]}/v1\n")
    server.serve_forever()


if __name__ == "__main__":
    serve(int(sys.argv[1]), sys.argv[2])
