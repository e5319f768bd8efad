"""The model card that a trained verifier comes with, and the table that its training prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

FIGURES = ("macro_f1", "micro_f1", "macro_precision", "macro_recall", "map", "ece", "labels_per_sentence")


def table(figures: Mapping[str, Mapping[str, float]], classes: Mapping[str, Mapping[str, float]]) -> str:
    """Markdown: the figures of each split, and those of each class on held-out sentences."""
    rows = [["", *figures]]
    rows += [[name, *(f"{figures[split][name]:.3f}" for split in figures)] for name in FIGURES]
    head = ["held-out class", "precision", "recall", "f1", "sentences"]
    found = [
        [label, *(f"{row[name]:.3f}" for name in head[1:4]), f"{row['sentences']:.0f}"]
        for label, row in classes.items()
    ]
    return _grid(rows) + "\n" + _grid([head, *found])


def _grid(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [" | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    lines.insert(1, " | ".join("-" * width for width in widths))
    return "".join(f"| {line} |\n" for line in lines)


def card(
    labels: Sequence[str], tables: str, chosen: Mapping[str, Any], training: Mapping[str, Any]
) -> str:  # fmt: skip
    """README.md of a model folder: what it is for, its figures (`tables`), and what must be known before it is used."""
    facts = "".join(f"- {name}: {value}\n" for name, value in training.items())
    return f"""---
pipeline_tag: text-classification
tags: [emotion, multi-label, rationale-verifier]
---
# Emotional Rationale Verifier

A multi-label classifier that tells which emotions a sentence about a person speaks of ({", ".join(labels)}). Made to reward
explanations of emotion recognition (arXiv 2510.23506), not to judge people.

Probabilities are `sigmoid(logits)`. Macro F1 on held-out sentences is best above the threshold {chosen["threshold"]:.2f};
`sigmoid(logits / {chosen["temperature"]:.3f})` is calibrated. Both are in `erv.json` and in `config.json` (`erv`).

## Figures

With the emotions that the reward gives a sentence: above {training["threshold"]}, at most {training["top_k"]}, the likeliest when
none is. "heldout" chose threshold and temperature; "audit" chose nothing; "withheld" are phrases that training never saw.

{tables}
## Training

{facts}
## Limits

It knows its training text's language and phrases; figures on other text will be lower. Labels by a language model hold that
model's mistakes. A sentence that hedges between emotions may be given two, and a policy can learn to hedge.
"""
