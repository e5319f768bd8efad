"""Predictions on disk: appended while they are generated, merged when all are there, or read from another model's file."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from erv.evaluation.settings import AnswerKey
from erv.rationale import parse
from erv.rewards.legacy import read_lines
from erv.taxonomy import Taxonomy
from erv.types import Decoding, Prediction
from erv.utils.io import json_line, write_lines
from erv.utils.sanitize import parse_json

PREDICTIONS_FILE = "predictions.jsonl"  # in the run's folder

_log = logging.getLogger(__name__)


class IncompletePredictions(ValueError):
    """Clips without an answer, or with several that differ."""


def key_of(prediction: Prediction) -> AnswerKey:
    """What identifies an answer within a run."""
    return prediction.clip_id, prediction.decoding, prediction.sample


def make_prediction(
    clip_id: str,
    gold: str,
    text: str,
    taxonomy: Taxonomy,
    decoding: Decoding = "sampled",
    sample: int = 0,
    tokens: int = 0,
    finished: bool = True,
) -> Prediction:
    """Parse a policy's text into a prediction: the one place where its answer and its rationale are taken from it."""
    parsed = parse(text)
    return Prediction(
        clip_id=clip_id,
        gold=gold,
        text=text,
        decoding=decoding,
        sample=sample,
        answer=taxonomy.normalise(parsed.answer),
        think=parsed.think,
        well_formed=parsed.well_formed,
        tokens=tokens,
        finished=finished,
    )


class PredictionFile:
    """A JSONL file that rows are appended to; every `append` is on disk before it returns.

    A process that is killed while it writes leaves a part of a row, which is cut off when the file is opened again.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        content = path.read_bytes() if path.is_file() else b""
        complete = content.rfind(b"\n") + 1
        if complete != len(content):
            _log.warning("%s ended in the middle of a row, which is made again", path)
            with path.open("rb+") as file:
                file.truncate(complete)

    def append(self, predictions: Iterable[Prediction]) -> None:
        """Add rows."""
        with self.path.open("a") as file:
            file.write("".join(json_line(p.row()) for p in predictions))
            file.flush()
            os.fsync(file.fileno())


def shard_file(folder: Path, shard: tuple[int, int] | None) -> Path:
    """The file that a process writes to: the run's own, or one beside it for shard `k` of `n`."""
    return folder / (PREDICTIONS_FILE if shard is None else f"predictions-{shard[0]}-of-{shard[1]}.jsonl")


def _prediction_files(folder: Path) -> list[Path]:
    """Every file of a run that holds predictions: its own, and those of shards."""
    return sorted(folder.glob("predictions*.jsonl"))


def read_rows(folder: Path) -> dict[AnswerKey, Prediction]:
    """Read the complete rows of all prediction files of a run.

    The same row twice counts once, with a warning; two different rows for one answer raise IncompletePredictions.
    """
    rows: dict[AnswerKey, Prediction] = {}
    file_of: dict[AnswerKey, Path] = {}
    duplicates = 0
    for file in _prediction_files(folder):
        *lines, _ = file.read_text().split("\n")  # the last one is empty, or a row that was cut off
        for line in lines:
            prediction = Prediction.from_row(json.loads(line))
            key = key_of(prediction)
            if key in rows and rows[key].text != prediction.text:
                raise IncompletePredictions(
                    f"clip {key[0]} ({key[1]}, sample {key[2]}) has two different answers, in {file_of[key].name} and "
                    f"{file.name}; delete the file that does not belong to this run"
                )
            duplicates += key in rows
            rows[key], file_of[key] = prediction, file
    if duplicates:
        _log.warning("%d rows of %s stand there twice and count once", duplicates, folder)
    return rows


def merge_shards(folder: Path, expected: Sequence[AnswerKey]) -> list[Prediction]:
    """Read the rows of the `expected` keys, in that order; IncompletePredictions names missing and unexpected ones."""
    rows = read_rows(folder)
    check_complete(rows.keys(), expected, str(folder))
    return [rows[key] for key in expected]


def check_complete(keys: Iterable[AnswerKey], expected: Sequence[AnswerKey], where: str) -> None:
    """Raise IncompletePredictions unless `keys` are exactly the `expected` ones."""
    present, required = set(keys), set(expected)
    for difference, problem in (
        (required - present, "answers are missing"),
        (present - required, "answers are to clips or samples that are not evaluated here"),
    ):
        if difference:
            clip_id, decoding, sample = min(difference)
            raise IncompletePredictions(
                f"{where}: {len(difference)} {problem}, first clip {clip_id} ({decoding}, sample {sample})"
            )


def write_predictions(folder: Path, predictions: Iterable[Prediction]) -> None:
    """Write predictions.jsonl as a whole, then delete the files of the shards that it was merged from."""
    write_lines(folder / PREDICTIONS_FILE, (p.row() for p in predictions))
    for file in _prediction_files(folder):
        if file.name != PREDICTIONS_FILE:
            file.unlink()


def move_aside(folder: Path) -> Path | None:
    """Move the prediction files of a run into a new folder `replaced-N` in it; None when they hold no rows."""
    files = [file for file in _prediction_files(folder) if file.stat().st_size]
    if not files:
        return None
    target = next(path for n in range(1, 10_000) if not (path := folder / f"replaced-{n}").exists())
    target.mkdir()
    for file in files:
        file.rename(target / file.name)
    return target


def read_external(file: Path, gold: Mapping[str, str], taxonomy: Taxonomy) -> list[Prediction]:
    """Read predictions made elsewhere: a run's predictions.jsonl, JSONL of {"id", "text"}, or the released `id|text`.

    `gold` maps a clip's id to its label; a row's own label counts where `gold` has none. Raises ValueError with file and row for
    what cannot be read.
    """
    if not file.is_file():
        raise ValueError(
            f"{file}: no such file; set predictions to predictions.jsonl, other JSONL, or a file of id|text"
        )
    content = file.read_text(encoding="utf-8-sig")
    if file.suffix != ".jsonl":
        return read_released(content, gold, taxonomy, str(file))
    predictions = []
    for number, line in enumerate(content.split("\n"), start=1):
        if line.strip():
            try:
                predictions.append(_external_row(parse_json(line), gold, taxonomy))
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                raise ValueError(f"{file}:{number}: {error}") from error
    if not predictions:
        raise ValueError(f"{file}: there is no prediction in it")
    return predictions


def _external_row(row: Any, gold: Mapping[str, str], taxonomy: Taxonomy) -> Prediction:
    if not isinstance(row, Mapping):
        raise ValueError("a row is an object with 'id' and 'text'")
    id_ = row.get("clip_id", row.get("id"))
    if id_ is None or not isinstance(row.get("text"), str):
        raise ValueError(f"a row needs 'id' (or 'clip_id') and 'text'; got {', '.join(map(str, row))}")
    row["text"].encode()  # raises ValueError for half of a surrogate pair, which no file and no endpoint can take
    if {"clip_id", "gold", "sentences", "verdicts"} <= row.keys():  # written by a run of ours
        prediction = Prediction.from_row(row)
        taxonomy.index(prediction.gold)
        return prediction
    label = _gold_label(str(id_), gold.get(str(id_)) or row.get("gold") or row.get("label"), taxonomy)
    decoding, sample = row.get("decoding", "sampled"), int(row.get("sample", 0))
    return make_prediction(str(id_), label, row["text"], taxonomy, decoding, sample)


def read_released(
    content: str,
    gold: Mapping[str, str],
    taxonomy: Taxonomy,
    where: str = "predictions",
) -> list[Prediction]:
    """Parse predictions in the released format: `id|text`, where the text may go over several lines."""
    lines = read_lines(content)
    if not lines:
        raise ValueError(f"{where}: no line begins with `digits|`; a file that is no JSONL (.jsonl) is read as id|text")
    labels = [_gold_label(line.id, gold.get(line.id), taxonomy) for line in lines]
    return [make_prediction(line.id, label, line.text, taxonomy) for line, label in zip(lines, labels, strict=True)]


def _gold_label(id_: str, gold: str | None, taxonomy: Taxonomy) -> str:
    if not gold:
        raise ValueError(
            f"clip {id_} has no gold label; choose the data it is of (data=NAME), or give 'gold' in its row"
        )
    label = taxonomy.normalise(gold) or gold
    taxonomy.index(label)  # raises ValueError for a label off the list
    return label
