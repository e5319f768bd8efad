"""Trained verifiers beside TF-IDF with logistic regression and the published figures, and on MELD, appended to a table.

    python experiments/real_verifier/compare.py RUNS… [--meld test_sent_emo.csv] --table FILE

RUNS are folders of verifier runs on GoEmotions, whose figures are read from their metrics.json. MELD has the labels of the runs
with seven classes, and nothing is chosen on it: thresholds and temperature are those of GoEmotions' development sentences.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from erv.report.runs import Result
from erv.report.table import grid
from erv.report.verifiers import load_verifiers
from erv.taxonomy import MELD, of_labels
from erv.verifier import Sentences, load_verifier
from erv.verifier.baseline import macro_f1_difference, tfidf_probabilities
from erv.verifier.calibration import sigmoid
from erv.verifier.metrics import calibration_error, per_class, scores

# Macro F1 in percent on the same test sentences. BERT-base (Demszky et al. 2020, "GoEmotions: A Dataset of Fine-Grained
# Emotions"): 64 in the Ekman grouping, 46 in all classes; later classifiers of the 28 classes report up to 53.
PUBLISHED = {7: "64", 28: "46 to 53"}
HEAD = ["verifier", "sentences", "macro F1", "TF-IDF", "difference", "ECE", "ECE calibrated", "published"]


def in_domain(run: Result) -> list[str]:
    """The row of a run on GoEmotions' test sentences; the threshold of either side is that of the development sentences."""
    chosen, baseline = run.metrics["chosen"], run.metrics["baseline"]
    return [
        run.label,
        "GoEmotions test",
        _percent(chosen["macro_f1"]),
        _percent(baseline["macro_f1"]),
        _interval(baseline["difference"], baseline["low"], baseline["high"]),
        _percent(chosen["ece"]),
        _percent(chosen["ece_calibrated"]),
        PUBLISHED[len(run.metrics["classes"])],
    ]


class OutOfDomain:
    """A run with seven classes on MELD's test lines, beside the TF-IDF of the same training rows."""

    def __init__(self, run: Result, file: str) -> None:
        data = run.config["verifier"]["data"]
        self.run, self.chosen, self.top_k = run, run.metrics["chosen"], int(run.metrics["sentences"]["top_k"])
        self.verifier = load_verifier(str(run.folder / "model"))
        taxonomy = of_labels("goemotions", self.verifier.labels)
        trained = Sentences({"goemotions": data["files"]["goemotions"]}, taxonomy, formats={"goemotions": "goemotions"})
        self.train = trained.rows("train")[: data["limit"]]
        meld = Sentences({"meld": {"test": file}}, taxonomy, formats={"meld": "meld"})
        self.sets = {"GoEmotions test": trained.rows("audit"), "MELD test": meld.rows("audit")}

    def row(self) -> list[str]:
        """The figures on MELD."""
        rows = self.sets["MELD test"]
        gold, logits = self._gold(rows), self.verifier.predict_logits([row["text"] for row in rows])
        texts = [row["text"] for row in self.train]
        baseline = tfidf_probabilities(texts, self._gold(self.train), [row["text"] for row in rows])
        columns = range(len(self.verifier.labels))
        thresholds = (self.chosen["threshold"], self.run.metrics["baseline"]["threshold"])
        pairs = zip((sigmoid(logits), baseline), thresholds, strict=True)
        mine, other = (scores(probabilities, gold, threshold, self.top_k) for probabilities, threshold in pairs)
        gain = macro_f1_difference(sigmoid(logits), baseline, gold, columns, thresholds, self.top_k)
        return [
            self.run.label,
            "MELD test",
            _percent(mine["macro_f1"]),
            _percent(other["macro_f1"]),
            _interval(gain.value, gain.low, gain.high),
            _percent(mine["ece"]),
            _percent(calibration_error(sigmoid(logits / self.chosen["temperature"]), gold)),
            "-",
        ]

    def classes(self) -> list[list[str]]:
        """F1 of each class and how many sentences have it, on either set."""
        lines = []
        for place, rows in self.sets.items():
            probabilities = sigmoid(self.verifier.predict_logits([row["text"] for row in rows]))
            found = per_class(
                probabilities,
                self._gold(rows),
                self.chosen["threshold"],
                self.top_k,
                self.verifier.columns(self.verifier.labels),
            )
            cells = [f"{_percent(row['f1'])} ({row['sentences']:.0f})" for row in found.values()]
            lines.append([f"{self.run.label}, {place}", *cells])
        return lines

    def _gold(self, rows: list[dict[str, Any]]) -> np.ndarray:
        return self.verifier.targets([row["labels"] for row in rows]).numpy().astype(np.int64)


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"


def _interval(value: float, low: float, high: float) -> str:
    return f"{100 * value:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"


def main() -> None:
    """Append the tables to the file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUNS")
    parser.add_argument("--meld", metavar="FILE", help="MELD's test_sent_emo.csv")
    parser.add_argument("--table", type=Path, required=True, metavar="FILE", help="the Markdown file to append to")
    options = parser.parse_args()
    rows, classes = [], []
    for run in load_verifiers(options.runs):
        rows.append(in_domain(run))
        if options.meld and set(run.metrics["classes"]) == set(MELD.labels):
            other = OutOfDomain(run, options.meld)
            rows.append(other.row())
            classes.append((["F1 of each class (sentences)", *other.verifier.labels], other.classes()))
    text = f"\n{grid(HEAD, rows)}\n" + (
        "Percent, all on test sentences, which chose nothing: thresholds and temperature are from GoEmotions' development "
        "sentences, on MELD too. TF-IDF: macro F1 of TF-IDF with logistic regression on the same training rows; difference: "
        "macro F1 of the verifier less that, with the 95 % interval of a paired bootstrap over sentences.\n"
    )
    text += "".join(f"\n{grid(head, lines)}" for head, lines in classes)
    with options.table.open("a", encoding="utf-8") as file:
        file.write(text)
    print(text)


if __name__ == "__main__":
    main()
