"""Data sets of labelled text in the layouts that their authors publish, and tables of one's own, as rows with labels."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from erv.utils.tables import Cells, read_table

Row = dict[
    str, Any
]  # "text" and "labels" (names as the data set has them; None: nobody has labelled it), and what is there
_LABEL_FILES = ("labels.txt", "emotions.txt")  # beside a table: a label a line, for labels by index
_BRIGHTER = ("anger", "disgust", "fear", "joy", "sadness", "surprise")
# ISO 639 codes of BRIGHTER's file names that are written with other letters elsewhere
_LANGUAGES = {
    "afr": "af", "amh": "am", "chn": "zh", "deu": "de", "eng": "en", "esp": "es", "hau": "ha", "hin": "hi", "ibo": "ig",
    "ind": "id", "jav": "jv", "kin": "rw", "mar": "mr", "oro": "om", "ptbr": "pt", "ptmz": "pt", "ron": "ro", "rus": "ru",
    "som": "so", "sun": "su", "swa": "sw", "swe": "sv", "tat": "tt", "tir": "ti", "ukr": "uk", "xho": "xh", "yor": "yo",
    "zul": "zu",
}  # fmt: skip
# C1 control characters are what is left of Windows quotes and dashes that were decoded as Latin-1
_CONTROLS = {code: bytes([code]).decode("cp1252", "ignore") for code in range(0x80, 0xA0)}
_VALENCE = (2.75, 3.25)  # of EmoBank: below is negative, above is positive


@dataclass(frozen=True)
class Format:
    """How a file is read, and what is known of every file in this layout."""

    read: Callable[[Path, tuple[str, ...]], Iterator[tuple[str, Row]]]
    licence: str | None = None
    labelled_by: str | None = None


def _table(path: Path, names: tuple[str, ...]) -> Iterator[tuple[str, Row]]:
    """Columns text and labels; JSON lines as erv.label writes them are such a table."""
    names = _label_file(path) or names
    for place, cells in read_table(path):
        if cells.get("status", "ok") == "ok":
            yield place, {**cells, "labels": _listed(_cell(cells, "labels", place), names, place)}


def _goemotions(path: Path, _: tuple[str, ...]) -> Iterator[tuple[str, Row]]:
    """TSV without a header: text, indices into labels.txt, id."""
    names = _label_file(path)
    if names is None:
        raise ValueError(
            f"{path.parent}: GoEmotions' labels are indices, and {_LABEL_FILES[0]} is not beside {path.name}"
        )
    for place, cells in read_table(path, columns=("text", "labels", "id")):
        yield place, {**cells, "labels": _listed(cells["labels"], names, place), "language": "en"}


def _brighter(path: Path, _: tuple[str, ...]) -> Iterator[tuple[str, Row]]:
    """CSV (track A) with a column of 0 and 1 for each emotion; none of them is neutral, and empty cells are no labels."""
    code = path.stem.lower()
    for place, cells in read_table(path):
        values = {name: str(value or "").strip() for name, value in cells.items() if name in _BRIGHTER}
        if not values:
            raise ValueError(f"{place}: none of the columns {', '.join(_BRIGHTER)} is there, but {', '.join(cells)}")
        if odd := {f"{name} {value}" for name, value in values.items() if value not in ("", "0", "1")}:
            raise ValueError(f"{place}: an emotion of BRIGHTER's track A is 0 or 1, got {', '.join(sorted(odd))}")
        labels = [name for name, value in values.items() if value == "1"] or ["neutral"]
        row = {"text": _cell(cells, "text", place), "labels": labels if all(values.values()) else None}
        yield place, {**row, "id": cells.get("id"), "language": _LANGUAGES.get(code, code)}


def _meld(path: Path, _: tuple[str, ...]) -> Iterator[tuple[str, Row]]:
    """CSV with Utterance and Emotion; releases differ in how their quotes and dashes are encoded."""
    for place, cells in read_table(path, fallback="cp1252"):
        text, label = (str(_cell(cells, name, place) or "") for name in ("Utterance", "Emotion"))
        id_ = f"dia{cells.get('Dialogue_ID')}_utt{cells.get('Utterance_ID')}"
        yield place, {"text": text.translate(_CONTROLS), "labels": [label], "id": id_, "language": "en"}


def _emobank(path: Path, _: tuple[str, ...]) -> Iterator[tuple[str, Row]]:
    """CSV with valence V from 1 to 5, of which a quarter of a point around 3 is neutral; arousal and dominance are no labels."""
    for place, cells in read_table(path):
        try:
            valence = float(_cell(cells, "V", place))
        except (TypeError, ValueError) as error:
            raise ValueError(f"{place}: V is the valence, a number from 1 to 5, got {cells.get('V')!r}") from error
        if not 1 <= valence <= 5:
            raise ValueError(f"{place}: V is the valence, a number from 1 to 5, got {cells['V']}")
        label = "negative" if valence < _VALENCE[0] else "positive" if valence > _VALENCE[1] else "neutral"
        row = {"text": _cell(cells, "text", place), "labels": [label], "split": cells.get("split")}
        yield place, {**row, "id": cells.get("id"), "language": "en"}


FORMATS = {
    "table": Format(_table),
    "goemotions": Format(_goemotions, "Apache-2.0", "human"),
    "brighter": Format(_brighter, "CC BY 4.0", "human"),
    "meld": Format(_meld, "GPL-3.0", "human"),
    "emobank": Format(_emobank, "CC BY-SA 4.0", "human"),
}


def _cell(cells: Cells, name: str, place: str) -> Any:
    if name not in cells:
        raise ValueError(f"{place}: there is no column {name!r}, but {', '.join(map(str, cells))}")
    return cells[name]


def _label_file(path: Path) -> tuple[str, ...] | None:
    file = next((file for name in _LABEL_FILES if (file := path.parent / name).is_file()), None)
    return tuple(file.read_text("utf-8-sig").split()) if file else None


def _listed(value: Any, names: tuple[str, ...], place: str) -> list[str]:
    """The labels of a cell: a list, or a text with commas, semicolons, bars or spaces; a number is a place in `names`."""
    if isinstance(value, str):
        value = [part.strip("'\"") for part in re.split(r"[\s,;|]+", value.strip(" []")) if part]
    found = []
    for label in value if isinstance(value, list) else [value] if value is not None else []:
        if isinstance(label, int) and not isinstance(label, bool):
            label = str(label)
        if not isinstance(label, str):
            raise ValueError(f"{place}: a label is a name or an index, got {label!r}")
        if label.isdecimal():
            if int(label) >= len(names):
                raise ValueError(
                    f"{place}: label {label} is no index from 0 to {len(names) - 1} of the labels {', '.join(names)}"
                )
            label = names[int(label)]
        found.append(label)
    return found
