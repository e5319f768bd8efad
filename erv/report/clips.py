"""The clips of the page: where they are, and what every run said about them."""

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

from erv.evaluation.metrics.scores import confusion, indices
from erv.evaluation.metrics.summary import verdict_of
from erv.report.runs import Result
from erv.types import Prediction

# Degrees on the colour wheel; a label that is not here gets one by its name's turn.
_HUES = {
    "happy": 95, "happiness": 95, "joy": 95, "sad": 255, "sadness": 255, "angry": 25, "anger": 25,
    "surprise": 60, "surprised": 60, "disgust": 140, "fear": 305, "contempt": 350, "anxiety": 200,
    "helplessness": 280, "disappointment": 230, "calm": 175,
}  # fmt: skip
_TURN = 137.5


class Clips:
    """The clips of some runs, each once, in the order of the runs' own files.

    `rows` are the clips: id, gold label, file, and `source`, what a player opens: a path from `folder` on, or with `embed`
    the file itself; None where the file is gone.
    """

    def __init__(self, runs: Sequence[Result], folder: Path, limit: int | None, embed: bool) -> None:
        self.folder, self.embed = folder, embed
        self.rows: list[dict[str, Any]] = []
        self._places: dict[tuple[str, str, str | None], int] = {}
        for run in runs:
            kept: dict[str, None] = {}
            for p in run.predictions:
                if limit is None or len(kept) < limit or p.clip_id in kept:
                    kept[p.clip_id] = None
                    self._place(run, p)
        labels = list(dict.fromkeys(label for run in runs for label in run.labels))
        self.hues = {label: _HUES.get(label, labels.index(label) * _TURN % 360) for label in labels}

    def _key(self, run: Result, p: Prediction) -> tuple[str, str, str | None]:
        return p.clip_id, p.gold, run.videos.get(p.clip_id)

    def _place(self, run: Result, p: Prediction) -> None:
        key = self._key(run, p)
        if key not in self._places:
            self._places[key] = len(self.rows)
            file = key[2]
            self.rows.append(
                {"id": p.clip_id, "gold": p.gold, "file": file, "source": file and self._source(Path(file))}
            )

    def _source(self, file: Path) -> str | None:
        if not file.is_file():
            return None
        if self.embed:
            kind = mimetypes.guess_type(file.name)[0] or "video/mp4"
            return f"data:{kind};base64,{base64.b64encode(file.read_bytes()).decode()}"
        try:
            return quote(os.fsencode(Path(os.path.relpath(file.resolve(), self.folder.resolve())).as_posix()))
        except ValueError:  # another drive
            return file.resolve().as_uri()

    def answers(self, run: Result) -> list[dict[str, Any]]:
        """Every answer of the run to the page's clips."""
        found = ((self._places.get(self._key(run, p)), p) for p in run.predictions)
        return [_answer(place, p) for place, p in found if place is not None]

    def about(self, run: Result) -> dict[str, Any]:
        """What the page's scripts know of a run."""
        kinds = dict.fromkeys(f"{p.decoding}/{p.sample}" for p in run.predictions)
        first = [kind for kind in kinds if kind.startswith(run.decoding)]
        return {
            "label": run.label, "seed": run.seed, "judge": run.judge, "labels": run.labels,
            "kinds": [*first, *(kind for kind in kinds if kind not in first)], "confusion": _confusion(run),
            "notes": run.notes,
        }  # fmt: skip


def _answer(place: int, p: Prediction) -> dict[str, Any]:
    sentences = [[s.text, list(s.emotions)] for s in p.sentences] or ([[p.think, []]] if p.think else [])
    row = {
        "clip": place, "decoding": p.decoding, "sample": p.sample, "answer": p.answer, "well_formed": p.well_formed,
        "finished": p.finished, "tokens": p.tokens, "sentences": sentences, "rewards": _finite(p.rewards),
        "verdicts": [asdict(v) for v in p.verdicts],
    }  # fmt: skip
    return row if p.well_formed and p.answer is not None else {**row, "raw": p.text}


def _finite(rewards: Mapping[str, float | None]) -> dict[str, float | None]:
    return {name: value if value is not None and isfinite(value) else None for name, value in rewards.items()}


def _confusion(run: Result) -> dict[str, list[list[int]] | None]:
    """Counts of the answers that the figures are about: gold by answer, and gold by what the judge read."""
    answers = [p for found in run.answers.values() for p in found]
    said = _counts(run, answers, [p.answer for p in answers])
    read = [verdict_of(p, run.judge).emotion for p in run.read] if run.judge else []
    return {"answer": said, "explanation": _counts(run, run.read, read) if run.judge else None}


def _counts(run: Result, answers: Sequence[Prediction], said: Sequence[str | None]) -> list[list[int]]:
    gold = indices([p.gold for p in answers], run.labels)
    counts: list[list[int]] = confusion(gold, indices(said, run.labels), len(run.labels)).tolist()
    return counts
