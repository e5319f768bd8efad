"""People as judges: a blinded sheet to rate, and rated sheets read back."""

from __future__ import annotations

import csv
import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from erv.evaluation.judges.base import OnVerdict, refused
from erv.taxonomy import Taxonomy
from erv.types import Prediction, Verdict
from erv.utils.sanitize import cell

SHEET, GUIDE = "sheet.csv", "guide.md"


def item_of(text: str) -> str:
    """The name of an explanation on a sheet: it tells nothing of the clip, the label or the policy."""
    return hashlib.sha256(text.strip().encode()).hexdigest()[:12]


class HumanJudge:
    """The emotion that most raters gave an explanation; where two are given as often there is none ("off_list").

    `sheets` are CSV files with a column `emotion` and a column `item` (of a sheet written by `export_sheet`) or `text`; a row
    without an emotion is not rated. A file is one rater, unless it has a column `rater`. Explanations that are on no sheet
    have no verdict at all, so that figures are over the rated ones.
    """

    free = False
    partial = True

    def __init__(self, taxonomy: Taxonomy, sheets: Sequence[str], name: str = "human") -> None:
        self.name, self.taxonomy, self.sheets = name, taxonomy, list(sheets)
        self._ratings: dict[str, dict[str, str]] | None = None

    @property
    def ratings(self) -> Mapping[str, Mapping[str, str]]:
        """Item -> rater -> label; ValueError with file and row for what cannot be read."""
        if self._ratings is None:
            found: dict[str, dict[str, str]] = defaultdict(dict)
            for sheet in self.sheets:
                self._read_sheet(Path(sheet), found)
            if not found:
                raise ValueError(f"no row of {', '.join(self.sheets) or 'judge.human.sheets=[]'} has an emotion")
            self._ratings = dict(found)
        return self._ratings

    def _read_sheet(self, file: Path, found: dict[str, dict[str, str]]) -> None:
        if not file.is_file():
            raise ValueError(f"{file}: no such file; set judge.human.sheets to the sheets that were rated")
        with file.open(newline="", encoding="utf-8-sig") as lines:
            rows = csv.DictReader(lines)
            columns = set(rows.fieldnames or ())
            if "emotion" not in columns or not columns & {"item", "text"}:
                raise ValueError(
                    f"{file}: a sheet has the columns emotion and item (or text), got {', '.join(sorted(columns))}"
                )
            for number, row in enumerate(rows, start=2):
                given = (row["emotion"] or "").strip()
                if given:
                    item, rater = row.get("item") or item_of(row.get("text") or ""), row.get("rater") or file.stem
                    self._note(found[item], rater, given, f"{file}:{number}")

    def _note(self, of_item: dict[str, str], rater: str, given: str, where: str) -> None:
        label = self.taxonomy.normalise(given)
        if label is None:
            self._explain(given, where)
        elif of_item.setdefault(rater, label) != label:
            raise ValueError(
                f"{where}: {rater} has rated this item twice, as {of_item[rater]} and as {label}; keep one row"
            )

    def _explain(self, given: str, where: str) -> None:
        try:
            self.taxonomy.index(given)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error

    def matrix(self) -> tuple[list[str], np.ndarray]:
        """The raters, and their labels as class indices `[raters, items]`, -1 where one has not rated an item."""
        raters = sorted({rater for of_item in self.ratings.values() for rater in of_item})
        rows = [[self.taxonomy.index(of[r]) if r in of else -1 for of in self.ratings.values()] for r in raters]
        return raters, np.array(rows, dtype=np.int64)

    def require(self) -> None:
        """Raise ValueError for a sheet that is not there or cannot be read."""
        _ = self.ratings

    def waiting(self, texts: Sequence[str]) -> int:
        """None: they have said what they have to say."""
        return 0

    def cost(self, texts: Sequence[str]) -> None:
        """Nothing more."""

    def describe(self) -> dict[str, Any]:
        """Raters and rated items."""
        raters, found = self.matrix()
        return {"kind": "human", "raters": raters, "items": found.shape[1]}

    async def read(self, texts: Sequence[str], on_verdict: OnVerdict = lambda: None) -> list[Verdict | None]:
        """The raters' verdict on each text that was on a sheet."""
        return [self._verdict(self.ratings.get(item_of(text))) for text in texts]

    def _verdict(self, of_item: Mapping[str, str] | None) -> Verdict | None:
        if of_item is None:
            return None
        (first, most), *others = Counter(of_item.values()).most_common()
        tied = [label for label, count in others if count == most]
        if tied:
            return refused(self.name, "off_list", f"raters differ: {', '.join([first, *tied])}")
        return Verdict(self.name, first, "ok")


def export_sheet(
    predictions: Sequence[Prediction], taxonomy: Taxonomy, folder: Path, items: int, seed: int
) -> Path:  # fmt: skip
    """Write a sheet of `items` explanations to rate, and a guide; returns the sheet.

    Blinded: an item is its text alone, in random order, without clip, label, answer or the name of the policy. Stratified: as
    many of each gold class as there are, one explanation per clip, each text once.
    """
    folder.mkdir(parents=True, exist_ok=True)
    chosen = _stratified(predictions, items, seed)
    with (folder / SHEET).open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["item", "text", "emotion"])
        rows.writerows([item_of(text), cell(text), ""] for text in chosen)
    (folder / GUIDE).write_text(
        "Each row of sheet.csv is an explanation of how a person in a clip looks, sounds and acts. Write into the column "
        f"`emotion` the one emotion that the explanation gives the person: {', '.join(taxonomy.labels)}. If it describes none, "
        f"that is {taxonomy.neutral}. Judge the text alone; leave a row empty that cannot be judged. Work alone, and save "
        "your copy under your name.\n"
    )
    return folder / SHEET


def _stratified(predictions: Sequence[Prediction], items: int, seed: int) -> list[str]:
    rng = np.random.default_rng(seed)
    by_class: dict[str, dict[str, str]] = defaultdict(dict)
    for place in rng.permutation(len(predictions)):
        p = predictions[place]
        text = (p.think or "").strip()
        if text:
            by_class[p.gold].setdefault(p.clip_id, text)
    in_turn = zip_longest(*(list(by_class[label].values()) for label in sorted(by_class)))
    texts = list(dict.fromkeys(text for turn in in_turn for text in turn if text is not None))[:items]
    return [texts[i] for i in rng.permutation(len(texts))]
