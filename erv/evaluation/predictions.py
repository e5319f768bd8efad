"""Predictions on disk: appended while they are made, merged when all are there, or read from somebody else's file."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from erv.rationale import parse
from erv.rewards.legacy import read_lines
from erv.taxonomy import Taxonomy
from erv.types import Decoding, Prediction
from erv.utils.io import json_line, write_lines
from erv.utils.sanitize import parse_json

_log = logging.getLogger(__name__)
FILE = "predictions.jsonl"  # in the run's folder
Key = tuple[str, Decoding, int]  # clip, way of decoding, number of the sample


class IncompletePredictions(ValueError):
    """Clips without an answer, or with several that differ."""


def key_of(prediction: Prediction) -> Key:
    """What tells one answer from all others of a run."""
    return prediction.clip_id, prediction.decoding, prediction.sample


class PredictionFile:
    """A JSONL file that rows are appended to; every `append` is on disk before it returns.

    A process that is killed while it writes leaves a part of a row, which is cut off when the file is opened again.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        whole = path.read_bytes() if path.is_file() else b""
        kept = whole[: whole.rfind(b"\n") + 1]
        if kept != whole:
            _log.warning("%s ended in the middle of a row, which is made again", path)
            with path.open("rb+") as file:
                file.truncate(len(kept))

    def append(self, predictions: Iterable[Prediction]) -> None:
        """Add rows."""
        with self.path.open("a") as file:
            file.write("".join(json_line(p.row()) for p in predictions))
            file.flush()
            os.fsync(file.fileno())


def part_file(folder: Path, shard: tuple[int, int] | None) -> Path:
    """Where a process writes: the run's own file, or one beside it for share `k` of `n`."""
    return folder / (FILE if shard is None else f"predictions-{shard[0]}-of-{shard[1]}.jsonl")


def parts(folder: Path) -> list[Path]:
    """Every file of a run that holds predictions."""
    return sorted(folder.glob("predictions*.jsonl"))


def read_parts(folder: Path) -> dict[Key, Prediction]:
    """All rows of a run's files, whole ones only.

    The same row twice is taken once, with a warning; two different rows for one answer raise IncompletePredictions.
    """
    found: dict[Key, Prediction] = {}
    origin: dict[Key, Path] = {}
    twice = 0
    for file in parts(folder):
        for prediction in _rows(file):
            key = key_of(prediction)
            if key in found and found[key].text != prediction.text:
                raise IncompletePredictions(
                    f"clip {key[0]} ({key[1]}, sample {key[2]}) has two different answers, in {origin[key].name} and "
                    f"{file.name}; delete the file that does not belong to this run"
                )
            twice += key in found
            found[key], origin[key] = prediction, file
    if twice:
        _log.warning("%d rows of %s stand there twice and count once", twice, folder)
    return found


def _rows(file: Path) -> Iterator[Prediction]:
    *lines, _ = file.read_text().split("\n")  # the last is empty, or torn
    yield from (Prediction.from_row(json.loads(line)) for line in lines)


def merged(folder: Path, wanted: Sequence[Key]) -> list[Prediction]:
    """The rows `wanted`, in that order; IncompletePredictions names what is missing and what nobody asked for."""
    found = read_parts(folder)
    check_complete(found.keys(), wanted, str(folder))
    return [found[key] for key in wanted]


def check_complete(found: Iterable[Key], wanted: Sequence[Key], where: str) -> None:
    """Raise IncompletePredictions unless `found` are exactly the `wanted` keys."""
    there, asked = set(found), set(wanted)
    for keys, what in (
        (asked - there, "answers are missing"),
        (there - asked, "answers are to clips or samples that are not evaluated here"),
    ):
        if keys:
            first = min(keys)
            raise IncompletePredictions(
                f"{where}: {len(keys)} {what}, first clip {first[0]} ({first[1]}, sample {first[2]})"
            )


def write(folder: Path, predictions: Iterable[Prediction]) -> None:
    """Write predictions.jsonl as a whole, then drop the shares it was made of."""
    write_lines(folder / FILE, (p.row() for p in predictions))
    for file in parts(folder):
        if file.name != FILE:
            file.unlink()


def keep_aside(folder: Path) -> Path | None:
    """Move the rows of a run out of the way, into a folder of their own; None when there are none."""
    there = [file for file in parts(folder) if file.stat().st_size]
    if not there:
        return None
    aside = next(p for n in range(1, 10_000) if not (p := folder / f"replaced-{n}").exists())
    aside.mkdir()
    for file in there:
        file.rename(aside / file.name)
    return aside


def read_foreign(file: Path, gold: Mapping[str, str], taxonomy: Taxonomy) -> list[Prediction]:
    """Predictions made elsewhere: a run's predictions.jsonl, JSONL of {"id", "text"}, or the released `id|text`.

    A row's own gold label counts where `gold` has none. Raises ValueError with file and row for what cannot be read.
    """
    if not file.is_file():
        raise ValueError(
            f"{file}: no such file; set predictions to predictions.jsonl, other JSONL, or a file of id|text"
        )
    content = file.read_text(encoding="utf-8-sig")
    if file.suffix != ".jsonl":
        return read_released(content, gold, taxonomy, str(file))
    found = []
    for number, line in enumerate(content.split("\n"), start=1):
        if line.strip():
            try:
                found.append(_foreign_row(parse_json(line), gold, taxonomy))
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                raise ValueError(f"{file}:{number}: {error}") from error
    if not found:
        raise ValueError(f"{file}: there is no prediction in it")
    return found


def _foreign_row(row: Any, gold: Mapping[str, str], taxonomy: Taxonomy) -> Prediction:
    if not isinstance(row, Mapping):
        raise ValueError("a row is an object with 'id' and 'text'")
    id_ = row.get("clip_id", row.get("id"))
    if id_ is None or not isinstance(row.get("text"), str):
        raise ValueError(f"a row needs 'id' (or 'clip_id') and 'text'; got {', '.join(map(str, row))}")
    row["text"].encode()  # half of a character, which no file and no endpoint can take, is refused here
    if {"clip_id", "gold", "sentences", "verdicts"} <= row.keys():  # of a run of ours
        own = Prediction.from_row(row)
        taxonomy.index(own.gold)
        return own
    label = _label(str(id_), gold.get(str(id_)) or row.get("gold") or row.get("label"), taxonomy)
    return made(str(id_), label, row["text"], taxonomy, row.get("decoding", "sampled"), int(row.get("sample", 0)))


def _label(id_: str, gold: str | None, taxonomy: Taxonomy) -> str:
    if not gold:
        raise ValueError(
            f"clip {id_} has no gold label; choose the data it is of (data=NAME), or give 'gold' in its row"
        )
    label = taxonomy.normalise(gold) or gold
    taxonomy.index(label)
    return label


def read_released(
    content: str, gold: Mapping[str, str], taxonomy: Taxonomy, where: str = "predictions"
) -> list[Prediction]:  # fmt: skip
    """Predictions in the released format: `id|text`, where the text may go over several lines."""
    lines = read_lines(content)
    if not lines:
        raise ValueError(f"{where}: no line begins with `digits|`; a file that is no JSONL (.jsonl) is read as id|text")
    return [made(line.id, _label(line.id, gold.get(line.id), taxonomy), line.text, taxonomy) for line in lines]


def made(
    id_: str, gold: str, text: str, taxonomy: Taxonomy, decoding: Decoding = "sampled", sample: int = 0,
    tokens: int = 0, finished: bool = True,
) -> Prediction:  # fmt: skip
    """A prediction from a policy's text: the one place where its answer and its rationale are taken from it."""
    found = parse(text)
    return Prediction(
        clip_id=id_, gold=gold, text=text, decoding=decoding, sample=sample,
        answer=taxonomy.normalise(found.answer), think=found.think, well_formed=found.well_formed, tokens=tokens,
        finished=finished,
    )  # fmt: skip
