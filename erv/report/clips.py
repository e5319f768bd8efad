"""The clips of the page: where their files are, and the answers of every run to them."""

from __future__ import annotations

import base64
import mimetypes
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from math import isfinite
from pathlib import Path
from typing import Any
from urllib.parse import quote

from erv.evaluation.metrics.answer_table import confusion, label_indices
from erv.evaluation.metrics.summary import verdict_of
from erv.report.runs import Result
from erv.types import Prediction

# Degrees on the colour wheel; other labels get one by their position, multiples of the golden angle, which stay apart.
_HUES = {
    "happy": 95,
    "happiness": 95,
    "joy": 95,
    "sad": 255,
    "sadness": 255,
    "angry": 25,
    "anger": 25,
    "surprise": 60,
    "surprised": 60,
    "disgust": 140,
    "fear": 305,
    "contempt": 350,
    "anxiety": 200,
    "helplessness": 280,
    "disappointment": 230,
    "calm": 175,
}
_GOLDEN_ANGLE = 137.5


class Clips:
    """The clips of some runs, each once, in the order of the runs' own files.

    `rows` are the clips: id, gold label, file, and `source`, the URL that a player opens: a path relative to `folder`, or with
    `embed` the content itself; None where the file is gone. `limit` keeps the first clips of each run.
    """

    def __init__(self, runs: Sequence[Result], folder: Path, limit: int | None, embed: bool) -> None:
        self.folder, self.embed = folder, embed
        self.rows: list[dict[str, Any]] = []
        self._index: dict[tuple[str, str, str | None], int] = {}  # what identifies a clip -> its index in `rows`
        for run in runs:
            included: set[str] = set()
            for p in run.predictions:
                if limit is None or len(included) < limit or p.clip_id in included:
                    included.add(p.clip_id)
                    self._add(run, p)
        labels = list(dict.fromkeys(label for run in runs for label in run.labels))
        self.hues = {label: _HUES.get(label, labels.index(label) * _GOLDEN_ANGLE % 360) for label in labels}

    def _key(self, run: Result, p: Prediction) -> tuple[str, str, str | None]:
        return p.clip_id, p.gold, run.videos.get(p.clip_id)

    def _add(self, run: Result, p: Prediction) -> None:
        key = self._key(run, p)
        if key not in self._index:
            self._index[key] = len(self.rows)
            file = key[2]
            source = file and self._source(Path(file))
            self.rows.append({"id": p.clip_id, "gold": p.gold, "file": file, "source": source})

    def _source(self, file: Path) -> str | None:
        if not file.is_file():
            return None
        if self.embed:
            kind = mimetypes.guess_type(file.name)[0] or "video/mp4"
            return f"data:{kind};base64,{base64.b64encode(file.read_bytes()).decode()}"
        try:
            return quote(os.fsencode(Path(os.path.relpath(file.resolve(), self.folder.resolve())).as_posix()))
        except ValueError:  # on another drive of Windows there is no relative path
            return file.resolve().as_uri()

    def answers(self, run: Result) -> list[dict[str, Any]]:
        """Every answer of the run to the page's clips."""
        indexed = ((self._index.get(self._key(run, p)), p) for p in run.predictions)
        return [_answer(index, p) for index, p in indexed if index is not None]

    def about(self, run: Result) -> dict[str, Any]:
        """The data of a run for the page's scripts."""
        kinds = dict.fromkeys(f"{p.decoding}/{p.sample}" for p in run.predictions)
        first = [kind for kind in kinds if kind.startswith(run.decoding)]
        return {
            "label": run.label,
            "seed": run.seed,
            "judge": run.judge,
            "labels": run.labels,
            "kinds": [*first, *(kind for kind in kinds if kind not in first)],
            "confusion": _confusion(run),
            "notes": run.notes,
        }


def _answer(clip: int, p: Prediction) -> dict[str, Any]:
    """An answer for the page's scripts; its text only where they cannot show it by its parts."""
    sentences = [[s.text, list(s.emotions)] for s in p.sentences] or ([[p.think, []]] if p.think else [])
    row = {
        "clip": clip,
        "decoding": p.decoding,
        "sample": p.sample,
        "answer": p.answer,
        "well_formed": p.well_formed,
        "finished": p.finished,
        "tokens": p.tokens,
        "sentences": sentences,
        "rewards": _finite(p.rewards),
        "verdicts": [asdict(v) for v in p.verdicts],
    }
    return row if p.well_formed and p.answer is not None else {**row, "raw": p.text}


def _finite(rewards: Mapping[str, float | None]) -> dict[str, float | None]:
    """None for NaN and infinity, which JSON has no numbers for."""
    return {name: value if value is not None and isfinite(value) else None for name, value in rewards.items()}


def _confusion(run: Result) -> dict[str, list[list[int]] | None]:
    """Counts over the answers that the metrics are about: gold by answer, and gold by what the judge read."""
    answers = [p for of_clip in run.answers.values() for p in of_clip]
    by_answer = _counts(run, answers, [p.answer for p in answers])
    if run.judge is None:
        return {"answer": by_answer, "explanation": None}
    judged = run.judged_answers
    return {
        "answer": by_answer,
        "explanation": _counts(run, judged, [verdict_of(p, run.judge).emotion for p in judged]),
    }


def _counts(run: Result, answers: Sequence[Prediction], labels: Sequence[str | None]) -> list[list[int]]:
    gold = label_indices([p.gold for p in answers], run.labels)
    counts: list[list[int]] = confusion(gold, label_indices(labels, run.labels), len(run.labels)).tolist()
    return counts
