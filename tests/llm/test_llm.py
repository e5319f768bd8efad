"""The client of an endpoint that sends what no endpoint should: each oddity is one failed question, and nothing else."""

import asyncio
import json
import time

import pytest
from endpoint import Endpoint, completion, judge

from erv.evaluation.judges.api import APIJudge
from erv.llm import Chat
from erv.llm.reply_cache import Reply
from erv.llm.transport import read_completion
from erv.taxonomy import DFEW

GOOD = '{"emotion": "sad"}'
TEXTS = ["He is angry.", "She is odd.", "They are happy."]


def body(content=GOOD, **parts):
    """A completion, with some of its parts replaced."""
    return json.dumps({**completion(content), **parts}).encode()


def choice(**parts):
    return body(choices=[{"index": 0, "finish_reason": "stop", **parts}])


def message(content, **parts):
    return choice(message={"role": "assistant", "content": content, **parts})


ODD = {
    "a list": b"[]",
    "null": b"null",
    "a number": b"3",
    "nothing": b"",
    "no UTF-8": b'{"a": "\xff',
    "nested": b"[" * 200_000,
    "an error with status 200": b'{"error": {"message": "overloaded", "code": 529}}',
    "no choices": body(choices=None),
    "choices of text": body(choices="abc"),
    "choices by name": body(choices={"a": 1}),
    "choice null": body(choices=[None]),
    "no message": body(choices=[{}]),
    "message null": choice(message=None),
    "message text": choice(message="sad"),
    "message empty": choice(message={}),
    "content of parts": message([{"type": "text", "text": GOOD}]),
    "content an object": message({"emotion": "sad"}),
    "content a number": message(3),
    "content true": message(True),
    "half a character": body('{"emotion": "\ud800"}'),
    "half a character, escaped": body(r'{"emotion": "\ud800"}'),
    "content nested": body("[" * 200_000),
    "emotion null": body('{"emotion": null}'),
    "emotions": body('{"emotion": ["sad"]}'),
    "a list inside": body('["sad"]'),
    "no JSON inside": body("sad"),
    "more than JSON": body(GOOD + " I hope this helps."),
    "cut off": body('{"emotion": "sa'),
}


@pytest.fixture
def read(tmp_path):
    """Ask a server that does `step` to the second text; returns the verdicts and the server."""
    servers = []

    def ask(step, **settings):
        servers.append(Endpoint(judge(DFEW.labels), plan={TEXTS[1]: [step] * 9}))
        quick = {"timeout_s": 1.0, "backoff_s": 0.0, "attempts": 2, "key_variable": None, **settings}
        chat = Chat("m", str(tmp_path / "replies.sqlite"), servers[-1].url, **quick)
        return asyncio.run(APIJudge(DFEW, chat).read(TEXTS)), servers[-1], chat

    yield ask
    for server in servers:
        server.close()


@pytest.mark.parametrize("name", ODD)
def test_an_odd_body_fails_its_own_question_only(read, name):
    verdicts, server, chat = read(ODD[name])
    assert [(v.status, v.emotion) for v in verdicts] == [("ok", "angry"), ("failed", None), ("ok", "happy")]
    assert verdicts[1].reason.startswith("2 calls, the last: ")
    json.dumps(verdicts[1].reason, ensure_ascii=False).encode()
    assert server.calls[TEXTS[1]] == 2
    assert (chat.ledger().calls, chat.ledger().interrupted) == (4, 0)


def test_a_refusal_that_is_no_text_is_a_refusal(read):
    verdicts, _, _ = read(message(None, refusal={"why": "policy"}))
    assert (verdicts[1].status, verdicts[1].emotion, verdicts[1].reason) == ("refused", None, "{'why': 'policy'}")


@pytest.mark.parametrize(
    "usage",
    [
        None,
        "x",
        [],
        {"prompt_tokens": "many"},
        {"prompt_tokens": 10**30},
        {"completion_tokens": [1]},
        {"prompt_tokens": -1},
    ],
)
def test_counts_that_make_no_sense_are_no_counts(read, usage):
    verdicts, _, chat = read(body(usage=usage))
    assert [v.emotion for v in verdicts] == ["angry", "sad", "happy"]
    assert chat.spent == 0


def test_a_reply_that_comes_byte_by_byte_is_not_waited_for(read):
    """No single wait is long; the whole reply would take 20 seconds."""
    began = time.monotonic()
    verdicts, server, _ = read("drip")
    assert time.monotonic() - began < 6
    assert [(v.status, v.emotion) for v in verdicts] == [("ok", "angry"), ("failed", None), ("ok", "happy")]
    assert server.calls[TEXTS[1]] == 2


def test_a_body_in_a_file_of_results_is_read_alike():
    assert read_completion(completion(GOOD), json.loads) == Reply("answered", GOOD, "", 200, 10)
    for odd in ({}, {"choices": {"a": 1}}, json.loads(message(3))):
        assert read_completion(odd, json.loads) == Reply(
            "failed", reason="the reply is no completion (ValidationError)"
        )
