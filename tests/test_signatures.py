"""The signature of every experiment is pinned: it names a run's folder, and a finished run must stay finished."""

import json

from signatures import FILE, signatures


def test_signatures_are_those_of_earlier_runs(monkeypatch):
    for name in ("ERV_RUNS", "ERV_DATA", "ERV_CACHE"):
        monkeypatch.delenv(name, raising=False)
    pinned = json.loads(FILE.read_text())
    assert signatures() == pinned


def test_a_signature_does_not_depend_on_where_things_lie(monkeypatch, tmp_path):
    pinned = json.loads(FILE.read_text())
    for name in ("ERV_RUNS", "ERV_DATA", "ERV_CACHE"):
        monkeypatch.setenv(name, str(tmp_path / name))
    assert signatures() == pinned
