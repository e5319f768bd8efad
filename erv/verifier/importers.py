"""Readers of labelled text: data sets in the layouts that their authors publish, and the user's tables."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from erv.utils.tables import Cells, read_table

# "text", "labels" (names as the data set has them; None if nobody labelled the row), and the other columns.
Row = dict[str, Any]
_LABEL_FILES = ("labels.txt", "emotions.txt")  # beside a table: a label a line, for labels given by index
_BRIGHTER = ("anger", "disgust", "fear", "joy", "sadness", "surprise")
# ISO 639-1 codes for the language codes in BRIGHTER's file names.
_LANGUAGES = {
    "afr": "af",
    "amh": "am",
    "chn": "zh",
    "deu": "de",
    "eng": "en",
    "esp": "es",
    "hau": "ha",
    "hin": "hi",
    "ibo": "ig",
    "ind": "id",
    "jav": "jv",
    "kin": "rw",
    "mar": "mr",
    "oro": "om",
    "ptbr": "pt",
    "ptmz": "pt",
    "ron": "ro",
    "rus": "ru",
    "som": "so",
    "sun": "su",
    "swa": "sw",
    "swe": "sv",
    "tat": "tt",
    "tir": "ti",
    "ukr": "uk",
    "xho": "xh",
    "yor": "yo",
    "zul": "zu",
}
# Some releases of MELD decoded Windows quotes and dashes as Latin-1, which turned them into C1 control characters.
_C1_TO_CP1252 = {code: bytes([code]).decode("cp1252", "ignore") for code in range(0x80, 0xA0)}
_VALENCE = (2.75, 3.25)  # of EmoBank: below is negative, above is positive


@dataclass(frozen=True)
class Format:
    """A file layout: its reader, and what is known of every file in it."""

    read: Callable[[Path, tuple[str, ...]], Iterator[tuple[str, Row]]]  # (file, labels) -> ("FILE:LINE", row)
    licence: str | None = None
    labelled_by: str | None = None


def _table(path: Path, names: tuple[str, ...]) -> Iterator[tuple[str, Row]]:
    """Read a table with the columns text and labels; JSON lines of erv.label are such a table."""
    names = _label_file(path) or names
    for location, cells in read_table(path):
        if cells.get("status", "ok") == "ok":
            yield location, {**cells, "labels": _parse_labels(_cell(cells, "labels", location), names, location)}


def _goemotions(path: Path, _: tuple[str, ...]) -> Iterator[tuple[str, Row]]:
    """Read a TSV file without header: text, indices into labels.txt, id."""
    names = _label_file(path)
    if names is None:
        raise ValueError(
            f"{path.parent}: GoEmotions' labels are indices, and {_LABEL_FILES[0]} is not beside {path.name}"
        )
    for location, cells in read_table(path, columns=("text", "labels", "id")):
        yield location, {**cells, "labels": _parse_labels(cells["labels"], names, location), "language": "en"}


def _brighter(path: Path, _: tuple[str, ...]) -> Iterator[tuple[str, Row]]:
    """Read a CSV file of track A: a column of 0 and 1 for each emotion. All 0 is neutral; empty cells are no labels."""
    code = path.stem.lower()
    for location, cells in read_table(path):
        values = {name: str(value or "").strip() for name, value in cells.items() if name in _BRIGHTER}
        if not values:
            raise ValueError(f"{location}: none of the columns {', '.join(_BRIGHTER)} is there, but {', '.join(cells)}")
        if invalid := {f"{name} {value}" for name, value in values.items() if value not in ("", "0", "1")}:
            raise ValueError(
                f"{location}: an emotion of BRIGHTER's track A is 0 or 1, got {', '.join(sorted(invalid))}"
            )
        labels = [name for name, value in values.items() if value == "1"] or ["neutral"]
        row = {"text": _cell(cells, "text", location), "labels": labels if all(values.values()) else None}
        yield location, {**row, "id": cells.get("id"), "language": _LANGUAGES.get(code, code)}


def _meld(path: Path, _: tuple[str, ...]) -> Iterator[tuple[str, Row]]:
    """Read a CSV file with Utterance and Emotion; releases differ in how quotes and dashes are encoded."""
    for location, cells in read_table(path, fallback="cp1252"):
        text, label = (str(_cell(cells, name, location) or "") for name in ("Utterance", "Emotion"))
        id_ = f"dia{cells.get('Dialogue_ID')}_utt{cells.get('Utterance_ID')}"
        yield location, {"text": text.translate(_C1_TO_CP1252), "labels": [label], "id": id_, "language": "en"}


def _emobank(path: Path, _: tuple[str, ...]) -> Iterator[tuple[str, Row]]:
    """Read a CSV file with the valence V from 1 to 5 as positive, negative or neutral (within a quarter of 3).

    Arousal and dominance are not used.
    """
    for location, cells in read_table(path):
        try:
            valence = float(_cell(cells, "V", location))
        except (TypeError, ValueError) as error:
            raise ValueError(f"{location}: V is the valence, a number from 1 to 5, got {cells.get('V')!r}") from error
        if not 1 <= valence <= 5:
            raise ValueError(f"{location}: V is the valence, a number from 1 to 5, got {cells['V']}")
        label = "negative" if valence < _VALENCE[0] else "positive" if valence > _VALENCE[1] else "neutral"
        row = {"text": _cell(cells, "text", location), "labels": [label], "split": cells.get("split")}
        yield location, {**row, "id": cells.get("id"), "language": "en"}


FORMATS = {
    "table": Format(_table),
    "goemotions": Format(_goemotions, "Apache-2.0", "human"),
    "brighter": Format(_brighter, "CC BY 4.0", "human"),
    "meld": Format(_meld, "GPL-3.0", "human"),
    "emobank": Format(_emobank, "CC BY-SA 4.0", "human"),
}


def _cell(cells: Cells, name: str, location: str) -> Any:
    if name not in cells:
        raise ValueError(f"{location}: there is no column {name!r}, but {', '.join(map(str, cells))}")
    return cells[name]


def _label_file(path: Path) -> tuple[str, ...] | None:
    """The label names in the file beside a table, if there is one."""
    file = next((file for name in _LABEL_FILES if (file := path.parent / name).is_file()), None)
    return tuple(file.read_text("utf-8-sig").split()) if file else None


def _parse_labels(value: Any, names: tuple[str, ...], location: str) -> list[str]:
    """Parse a cell: a list, or text with commas, semicolons, bars or spaces between labels; numbers are indices into `names`."""
    if isinstance(value, str):
        value = [part.strip("'\"") for part in re.split(r"[\s,;|]+", value.strip(" []")) if part]
    labels = []
    for label in value if isinstance(value, list) else [value] if value is not None else []:
        if isinstance(label, int) and not isinstance(label, bool):
            label = str(label)
        if not isinstance(label, str):
            raise ValueError(f"{location}: a label is a name or an index, got {label!r}")
        if label.isdecimal():
            if int(label) >= len(names):
                raise ValueError(
                    f"{location}: label {label} is no index from 0 to {len(names) - 1} of the labels {', '.join(names)}"
                )
            label = names[int(label)]
        labels.append(label)
    return labels
