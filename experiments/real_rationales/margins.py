"""R_E of a text's own label against the other labels, by the reward's own code, for every neutral filter and unit.

    python experiments/real_rationales/margins.py --verifier RUN --goemotions FOLDER --meld test_sent_emo.csv --table FILE

The texts are labelled by people and have several sentences; notes.md says what they are. The verifier has seven classes.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby, product
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import roc_auc_score

from erv.evaluation.metrics.bootstrap import paired_difference
from erv.rationale import sentences
from erv.report.table import grid
from erv.rewards.composite import CompositeReward
from erv.rewards.explanation import ExplanationReward
from erv.runs.resolve import find_model
from erv.taxonomy import Taxonomy, of_labels
from erv.verifier import Sentences, Verifier, load_verifier

UNITS = ("sentence", "window", "document")
FILTERS = ("all", "argmax", "margin", False)
NEUTRAL = "neutral"
BLOCK = 4  # consecutive lines of a dialogue
HEAD = ["texts", "unit", "threshold", "neutral_filter", "left out, emotion", "left out, neutral", "own", "others", "own - others",
        "own largest", "neutral texts", "AUC"]  # fmt: skip


@dataclass(frozen=True)
class Texts:
    """Texts with one label each."""

    name: str
    texts: list[str]
    gold: np.ndarray

    def summary(self) -> str:
        """How many there are, and how many of each label."""
        counts = ", ".join(f"{label} {int((self.gold == label).sum())}" for label in np.unique(self.gold))
        lengths = [len(sentences(text)) for text in self.texts]
        return f"{self.name}: {len(self.texts)} texts, {np.mean(lengths):.1f} sentences each ({counts})"


def several_sentences(name: str, rows: list[dict[str, Any]]) -> Texts:
    """The rows of one label and at least two sentences."""
    kept = [row for row in rows if len(row["labels"]) == 1 and len(sentences(row["text"])) > 1]
    return Texts(name, [row["text"] for row in kept], np.array([row["labels"][0] for row in kept]))


def dialogues(rows: list[dict[str, Any]]) -> Texts:
    """Blocks of consecutive lines of a MELD dialogue with neutral lines and lines of one emotion, which is the label.

    Blocks whose lines are all neutral are kept as neutral.
    """
    texts, gold = [], []
    for _, lines in groupby(rows, key=lambda row: row["id"].partition("_")[0]):
        for block in _blocks(list(lines)):
            labels = {row["labels"][0] for row in block}
            emotions = labels - {NEUTRAL}
            if NEUTRAL in labels and len(emotions) <= 1:
                texts.append(" ".join(row["text"] for row in block))
                gold.append(next(iter(emotions), NEUTRAL))
    return Texts("MELD dialogues", texts, np.array(gold))


def _blocks(lines: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    for start in range(0, len(lines) - BLOCK + 1, BLOCK):
        yield lines[start : start + BLOCK]


class Measured:
    """R_E `[T, E]` of every text for every label as the gold one, and the share of its sentences that is left out `[T]`."""

    def __init__(
        self,
        data: Texts,
        verifier: Verifier,
        taxonomy: Taxonomy,
        part: ExplanationReward,
    ) -> None:
        reward = CompositeReward(taxonomy, explanation=part, verifier=verifier, verifier_labels=verifier.labels)
        self.labels, self.gold = np.array(verifier.labels), data.gold
        values, left_out = [], []
        for found in reward.read(data.texts):
            if found is None:
                raise RuntimeError("the verifier failed, its error is above")
            emotions, filtered = [s.emotions for s in found], [s.filtered for s in found]
            values.append([part.value(emotions, label, NEUTRAL, filtered) for label in verifier.labels])
            left_out.append(np.mean(filtered))
        self.values, self.left_out = np.array(values, dtype=np.float64), np.array(left_out)
        own = self.labels == self.gold[:, None]
        self.own = self.values[own]
        # for neutral as the gold label the filter is off, so that it is no rival of the emotions
        self.rivals = np.where(own | (self.labels == NEUTRAL), np.nan, self.values)
        self.others = np.nanmean(self.rivals, axis=1)

    def difference(self, chosen: np.ndarray) -> str:
        """Mean of own less others over the texts `chosen`, with its 95 % interval: bootstrap over texts within labels."""
        strata = np.unique(self.gold[chosen], return_inverse=True)[1]
        value, (low, high) = paired_difference(self.others[chosen], self.own[chosen], strata=strata)
        return f"{100 * value:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"

    def row(self) -> list[str]:
        """The figures over all texts of an emotion, and what emotions earn in the neutral ones."""
        neutral = self.gold == NEUTRAL
        emotion = ~neutral
        largest = self.own > np.nanmax(self.rivals, axis=1)
        # R_E of a label in its own texts against that of the same label in the texts of any other
        areas = [
            roc_auc_score(self.gold == label, self.values[:, i])
            for i, label in enumerate(self.labels)
            if label != NEUTRAL and (self.gold == label).any()
        ]
        return [
            _percent(self.left_out[emotion].mean()),
            _percent(self.left_out[neutral].mean()),
            _percent(self.own[emotion].mean()),
            _percent(self.others[emotion].mean()),
            self.difference(emotion),
            _percent(largest[emotion].mean()),
            _percent(self.others[neutral].mean()),
            _percent(np.mean(areas)),
        ]

    def classes(self) -> list[str]:
        """Own less others in the texts of each label."""
        return [self.difference(self.gold == label) if (self.gold == label).any() else "-" for label in self.labels]


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"


def main() -> None:
    """Write the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--verifier", required=True, metavar="RUN", help="a run, a folder of one run, a model's folder")
    parser.add_argument("--goemotions", required=True, metavar="FOLDER", help="GoEmotions in seven classes")
    parser.add_argument("--meld", required=True, metavar="FILE", help="MELD's test_sent_emo.csv")
    parser.add_argument("--table", required=True, type=Path, metavar="FILE")
    options = parser.parse_args()
    folder, _ = find_model(options.verifier, 0)
    verifier = load_verifier(folder)
    taxonomy = of_labels("seven", verifier.labels)
    test = {"goemotions": f"{options.goemotions}/test.tsv", "meld": options.meld}
    rows = {
        name: Sentences({name: {"test": file}}, taxonomy, formats={name: name}).rows("audit")
        for name, file in test.items()
    }
    sets = [
        several_sentences("GoEmotions comments", rows["goemotions"]),
        several_sentences("MELD lines", rows["meld"]),
        dialogues(rows["meld"]),
    ]
    best = json.loads(Path(folder, "erv.json").read_text())["threshold"]
    lines, classes = [], []
    readings = [(0.1, unit) for unit in UNITS] + [(best, UNITS[0])]
    for data, (threshold, unit), neutral_filter in product(sets, readings, FILTERS):
        part = ExplanationReward(threshold=threshold, unit=unit, neutral_filter=neutral_filter)  # type: ignore[arg-type]
        measured = Measured(data, verifier, taxonomy, part)
        setting = [data.name, unit, f"{threshold:.2f}", str(neutral_filter or "false")]
        lines.append([*setting, *measured.row()])
        if threshold != best:
            classes.append([setting[0], setting[1], setting[3], *measured.classes()])
    facts = "".join(f"- {data.summary()}\n" for data in sets)
    text = (
        f"{grid(HEAD, lines)}\n"
        "Percent. neutral_filter=true is the same as all. left out: share of sentences (of a text's units) that the filter "
        "leaves out, in texts of an emotion and in neutral ones; own: R_E for the text's label; others: mean R_E for the other "
        "emotions; brackets: 95 % interval, bootstrap over texts; own largest: share of texts where R_E is larger for their "
        "label than for every other emotion; neutral texts: mean R_E for the six emotions in neutral texts; AUC: how often R_E "
        "for an emotion is larger in a text of it than in a text of another label, ties half, mean over emotions.\n\n"
        f"{facts}\n"
        f"{grid(['texts', 'unit', 'neutral_filter', *verifier.labels], classes)}\n"
        "Own - others by label of the text, threshold .10; for neutral texts own is R_E for neutral, of which no sentence is "
        "left out.\n"
    )
    options.table.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
