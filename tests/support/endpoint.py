"""A real HTTP server with an OpenAI-compatible endpoint on the loopback, which fails in the ways that a test plans."""

import json
import threading
import time
from collections import Counter, defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def completion(content, **message):
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": content, **message}}
    usage = {"prompt_tokens": 200, "completion_tokens": 10, "total_tokens": 210}
    return {"id": "x", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], "usage": usage}


class Endpoint:
    """`answer(request, user)` gives the content of a reply; `plan[text]` lists what happens to the first calls for a text.

    Entries of a plan: an HTTP status, a body of bytes, "timeout", "drip" (a good body, a byte at a time), "drop" (the
    connection is closed), "garbage" (a reply that is no JSON), "broken" (a body that is none), "empty", "refused", or
    "off_list". After `hold_after` answered calls all further ones wait until `let_go`.
    """

    def __init__(self, answer, plan=None, hold_after=None, retry_after=None, strange=None, port=0):
        self.answer, self.plan = answer, {text: list(steps) for text, steps in (plan or {}).items()}
        self.hold_after, self.retry_after = hold_after, retry_after
        self.strange = strange or {"emotions": ["melancholia"]}  # the answer that is "off_list"
        self.lock, self.release = threading.Lock(), threading.Event()
        self.calls, self.times, self.delivered, self.requests = Counter(), defaultdict(list), Counter(), []
        self.keys, self.answered, self.held = set(), 0, 0
        self.server = ThreadingHTTPServer(("127.0.0.1", port), self._handler())
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server.server_address[1]}/v1"

    def hold(self, after):
        with self.lock:
            self.release = threading.Event()
            self.hold_after, self.held = self.answered + after, 0

    def let_go(self):
        with self.lock:
            self.hold_after = None
        self.release.set()

    def close(self):
        self.let_go()
        self.server.shutdown()
        self.server.server_close()

    def _handler(self):
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def do_POST(self):
                request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                try:
                    endpoint.serve(self, request)
                except OSError:  # the client was killed
                    self.close_connection = True

        return Handler

    def serve(self, handler, request):
        user = json.loads(request["messages"][1]["content"])
        text = user.get("text", json.dumps(user))
        with self.lock:
            self.calls[text] += 1
            self.times[text].append(time.monotonic())
            self.requests.append(request)
            self.keys.add(handler.headers["Authorization"])
            held = self.hold_after is not None and self.answered >= self.hold_after
            self.held += held
            release = self.release
            step = None if held else self.plan[text].pop(0) if self.plan.get(text) else "ok"
            self.answered += not held
        if held:  # never answered: whoever asked is gone by the time it is let go
            release.wait(60)
            handler.close_connection = True
            return
        self.step(handler, step, request, user, text)

    def step(self, handler, step, request, user, text):
        if step == "timeout":
            time.sleep(3)
        if step in ("timeout", "drop"):
            handler.close_connection = True
            return
        status, body = 200, completion("I would say: quite sad!")
        if isinstance(step, int):
            status, body = step, {"error": {"message": f"no, {handler.headers['Authorization']}", "code": None}}
        elif step == "broken":
            body = None
        elif step == "empty":
            body = {"object": "chat.completion", "choices": []}
        elif step == "refused":
            body = completion(None, refusal="I cannot help with that.")
        elif step == "off_list":
            body = completion(json.dumps(self.strange))
        elif step in ("ok", "drip"):
            body = completion(json.dumps(self.answer(request, user)))
        if step in ("ok", "refused", "off_list"):
            with self.lock:
                self.delivered[text] += 1
        raw = step if isinstance(step, bytes) else b"<html>not json" if body is None else json.dumps(body).encode()
        handler.send_response(status)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", str(len(raw)))
        if self.retry_after is not None and status == 429:
            handler.send_header("Retry-After", str(self.retry_after))
        handler.end_headers()
        if step != "drip":
            handler.wfile.write(raw)
            return
        for byte in raw:
            handler.wfile.write(bytes([byte]))
            time.sleep(0.1)


def reader(labels, default="surprise"):
    """An answerer of labelling questions: the labels whose words stand in the text, at most two."""
    return lambda request, user: {"emotions": [w for w in labels if w in user["text"]][:2] or [default]}


def judge(labels, default="neutral"):
    """An answerer of judges' questions: the first label whose word stands in the text."""
    return lambda request, user: {"emotion": next((w for w in labels if w in user["text"]), default)}
