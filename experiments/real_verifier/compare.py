"""Trained verifiers beside TF-IDF with logistic regression and the published figures, and on MELD, appended to a table.

    python experiments/real_verifier/compare.py RUN… [--meld test_sent_emo.csv] --table FILE

RUN is a finished verifier run on GoEmotions, whose figures are read from its metrics.json. MELD has the labels of the runs with
seven classes, and nothing is chosen on it: thresholds and temperature are those of GoEmotions' development sentences.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from erv.emotions import MELD, of_labels
from erv.report.table import grid
from erv.verifier import Sentences, load_verifier, per_class, scores
from erv.verifier.baseline import difference, tfidf_probabilities
from erv.verifier.calibration import sigmoid
from erv.verifier.scores import calibration_error

# Macro F1 in percent on the same test sentences. BERT-base (Demszky et al. 2020, "GoEmotions: A Dataset of Fine-Grained
# Emotions"): 64 in the Ekman grouping, 46 in all classes; later classifiers of the 28 classes report up to 53.
PUBLISHED = {7: "64", 28: "46 to 53"}
HEAD = ["verifier", "sentences", "macro F1", "TF-IDF", "difference", "ECE", "ECE calibrated", "published"]


def in_domain(name: str, metrics: dict[str, Any]) -> list[str]:
    """The row of a run on GoEmotions' test sentences; the threshold of either side is that of the development sentences."""
    chosen, baseline = metrics["chosen"], metrics["baseline"]
    return [
        name,
        "GoEmotions test",
        _percent(chosen["macro_f1"]),
        _percent(baseline["macro_f1"]),
        _interval(baseline["difference"], baseline["low"], baseline["high"]),
        _percent(chosen["ece"]),
        _percent(chosen["ece_calibrated"]),
        PUBLISHED[len(metrics["classes"])],
    ]


class OutOfDomain:
    """A run with seven classes on MELD's test lines, beside the TF-IDF of the same training rows."""

    def __init__(self, run: Path, metrics: dict[str, Any], file: str) -> None:
        data = yaml.safe_load((run / "config.yaml").read_text())["verifier"]["data"]
        self.metrics, self.verifier = metrics, load_verifier(str(run / "model"))
        taxonomy = of_labels("goemotions", self.verifier.labels)
        trained = Sentences({"goemotions": data["files"]["goemotions"]}, taxonomy, formats={"goemotions": "goemotions"})
        self.train = trained.rows("train")[: data["limit"]]
        meld = Sentences({"meld": {"test": file}}, taxonomy, formats={"meld": "meld"})
        self.sets = {"GoEmotions test": trained.rows("audit"), "MELD test": meld.rows("audit")}

    def row(self, name: str) -> list[str]:
        """The figures on MELD."""
        rows, chosen = self.sets["MELD test"], self.metrics["chosen"]
        gold, logits = self._gold(rows), self.verifier.scored([row["text"] for row in rows])
        texts = [row["text"] for row in self.train]
        baseline = tfidf_probabilities(texts, self._gold(self.train), [row["text"] for row in rows])
        columns = range(len(self.verifier.labels))
        thresholds, top_k = (chosen["threshold"], self.metrics["baseline"]["threshold"]), _top_k(self.metrics)
        mine, other = (scores(p, gold, t, top_k) for p, t in zip((sigmoid(logits), baseline), thresholds, strict=True))
        gain = difference(sigmoid(logits), baseline, gold, columns, thresholds, top_k)
        return [
            name,
            "MELD test",
            _percent(mine["macro_f1"]),
            _percent(other["macro_f1"]),
            _interval(gain.value, gain.low, gain.high),
            _percent(mine["ece"]),
            _percent(calibration_error(sigmoid(logits / chosen["temperature"]), gold)),
            "-",
        ]

    def classes(self, name: str) -> list[list[str]]:
        """F1 of each class and how many sentences have it, on either set."""
        lines = []
        for place, rows in self.sets.items():
            probabilities = sigmoid(self.verifier.scored([row["text"] for row in rows]))
            found = per_class(
                probabilities,
                self._gold(rows),
                self.metrics["chosen"]["threshold"],
                _top_k(self.metrics),
                self.verifier.columns(self.verifier.labels),
            )
            cells = [f"{_percent(row['f1'])} ({row['sentences']:.0f})" for row in found.values()]
            lines.append([f"{name}, {place}", *cells])
        return lines

    def _gold(self, rows: list[dict[str, Any]]) -> np.ndarray:
        return self.verifier.targets([row["labels"] for row in rows]).numpy().astype(np.int64)


def _top_k(metrics: dict[str, Any]) -> int:
    return int(metrics["sentences"]["top_k"])


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"


def _interval(value: float, low: float, high: float) -> str:
    return f"{100 * value:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"


def main() -> None:
    """Append the tables to the file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    parser.add_argument("--meld", metavar="FILE", help="MELD's test_sent_emo.csv")
    parser.add_argument("--table", type=Path, required=True, metavar="FILE", help="the Markdown file to append to")
    options = parser.parse_args()
    rows, classes = [], []
    for run in options.runs:
        metrics, name = json.loads((run / "metrics.json").read_text()), run.parent.name
        rows.append(in_domain(name, metrics))
        if options.meld and set(metrics["classes"]) == set(MELD.labels):
            other = OutOfDomain(run, metrics, options.meld)
            rows.append(other.row(name))
            classes.append((["F1 of each class (sentences)", *other.verifier.labels], other.classes(name)))
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
