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

from erv.evaluation.judges.base import OnVerdict, no_emotion
from erv.evaluation.metrics.answer_table import UNKNOWN
from erv.taxonomy import Taxonomy
from erv.types import Prediction, Verdict
from erv.utils.sanitize import cell

SHEET, GUIDE = "sheet.csv", "guide.md"


def item_of(text: str) -> str:
    """The id of an explanation on a sheet, which reveals neither the clip nor the label nor the policy."""
    return hashlib.sha256(text.strip().encode()).hexdigest()[:12]


class HumanJudge:
    """Names the emotion that most raters gave an explanation; none ("off_list") where two were given equally often.

    `sheets` are CSV files with a column `emotion` and a column `item` (of a sheet written by `export_sheet`) or `text`; a row
    without an emotion is not rated. A file is one rater, unless it has a column `rater`. Explanations that are on no sheet
    have no verdict at all, so that metrics are over the rated ones.
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
            ratings: dict[str, dict[str, str]] = defaultdict(dict)
            for sheet in self.sheets:
                self._read_sheet(Path(sheet), ratings)
            if not ratings:
                raise ValueError(f"no row of {', '.join(self.sheets) or 'judge.human.sheets=[]'} has an emotion")
            self._ratings = dict(ratings)
        return self._ratings

    def _read_sheet(self, file: Path, ratings: dict[str, dict[str, str]]) -> None:
        """Add the ratings of a sheet to `ratings`."""
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
                emotion = (row["emotion"] or "").strip()
                if not emotion:
                    continue
                try:
                    label = self.taxonomy.label_of(emotion)
                except ValueError as error:  # which names the nearest label
                    raise ValueError(f"{file}:{number}: {error}") from error
                item, rater = row.get("item") or item_of(row.get("text") or ""), row.get("rater") or file.stem
                if ratings[item].setdefault(rater, label) != label:
                    raise ValueError(
                        f"{file}:{number}: {rater} has rated this item twice, as {ratings[item][rater]} and as {label}; "
                        "keep one row"
                    )

    def matrix(self) -> tuple[list[str], np.ndarray]:
        """The raters, and their labels as class indices `[raters, items]`, UNKNOWN where one has not rated an item."""
        items = self.ratings.values()
        raters = sorted({rater for of_item in items for rater in of_item})
        rows = [[self.taxonomy.index(of_item[r]) if r in of_item else UNKNOWN for of_item in items] for r in raters]
        return raters, np.array(rows, dtype=np.int64)

    def require(self) -> None:
        """Raise ValueError for a sheet that is not there or cannot be read."""
        _ = self.ratings

    def pending(self, texts: Sequence[str]) -> int:
        """None: the sheets are all there is."""
        return 0

    def cost(self, texts: Sequence[str]) -> None:
        """Nothing: the sheets are rated already."""

    def describe(self) -> dict[str, Any]:
        """Raters and rated items."""
        raters, matrix = self.matrix()
        return {"kind": "human", "raters": raters, "items": matrix.shape[1]}

    async def read(self, texts: Sequence[str], on_verdict: OnVerdict = lambda: None) -> list[Verdict | None]:
        """The raters' verdict on each text that was on a sheet."""
        return [self._verdict(self.ratings.get(item_of(text))) for text in texts]

    def _verdict(self, of_item: Mapping[str, str] | None) -> Verdict | None:
        if of_item is None:
            return None
        (first, highest), *others = Counter(of_item.values()).most_common()
        tied = [label for label, count in others if count == highest]
        if tied:
            return no_emotion(self.name, "off_list", f"raters differ: {', '.join([first, *tied])}")
        return Verdict(self.name, first, "ok")


def export_sheet(
    predictions: Sequence[Prediction],
    taxonomy: Taxonomy,
    folder: Path,
    items: int,
    seed: int,
) -> Path:
    """Write a sheet of `items` explanations to rate, and a guide; returns the sheet.

    Blinded: an item is its text alone, in random order, without clip, label, answer or the name of the policy. Stratified: the
    gold classes take turns until their clips are used up, one explanation per clip, each text once.
    """
    folder.mkdir(parents=True, exist_ok=True)
    texts = _stratified_texts(predictions, items, seed)
    with (folder / SHEET).open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["item", "text", "emotion"])
        rows.writerows([item_of(text), cell(text), ""] for text in texts)
    (folder / GUIDE).write_text(
        "Each row of sheet.csv is an explanation of how a person in a clip looks, sounds and acts. Write into the column "
        f"`emotion` the one emotion that the explanation gives the person: {', '.join(taxonomy.labels)}. If it describes none, "
        f"that is {taxonomy.neutral}. Judge the text alone; leave a row empty that cannot be judged. Work alone, and save "
        "your copy under your name.\n"
    )
    return folder / SHEET


def _stratified_texts(predictions: Sequence[Prediction], items: int, seed: int) -> list[str]:
    rng = np.random.default_rng(seed)
    by_class: dict[str, dict[str, str]] = defaultdict(dict)
    for i in rng.permutation(len(predictions)):
        p = predictions[i]
        text = (p.think or "").strip()
        if text:
            by_class[p.gold].setdefault(p.clip_id, text)
    turns = zip_longest(*(list(by_class[label].values()) for label in sorted(by_class)))
    texts = list(dict.fromkeys(text for turn in turns for text in turn if text is not None))[:items]
    return [texts[i] for i in rng.permutation(len(texts))]
