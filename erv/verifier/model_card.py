"""The model card that a trained verifier comes with, and the table that its training prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

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
    labels: Sequence[str],
    tables: str,
    chosen: Mapping[str, Any],
    training: Mapping[str, Any],
    sources: Sequence[Mapping[str, Any]],
    base_model: str | None = None,
    stock: bool = True,
) -> str:
    """README.md of a model folder: what it is for, its figures (`tables`), and what must be known before it is used.

    `sources` is `Sentences.provenance()`, `base_model` the hub id or folder name of the encoder (None: random weights) and
    `stock` whether transformers alone loads the folder.
    """
    facts = "".join(f"- {name}: {value}\n" for name, value in training.items())
    loaded = (
        "`AutoModelForSequenceClassification` of transformers loads it"
        if stock
        else (
            "The head reads the mean over the tokens, which transformers has no class for: read the folder with\n"
            "`erv.verifier.load_verifier(folder)`; `AutoModelForSequenceClassification` alone refuses it"
        )
    )
    return f"""{_front_matter(sources, base_model)}# Emotional Rationale Verifier

A multi-label classifier that tells which emotions a sentence about a person speaks of ({", ".join(labels)}). Made to reward
explanations of emotion recognition (arXiv 2510.23506), not to judge people. {loaded}.

Probabilities are `sigmoid(logits)`. Macro F1 on held-out sentences is best above the threshold {chosen["threshold"]:.2f};
`sigmoid(logits / {chosen["temperature"]:.3f})` is calibrated. Both are in `erv.json` and in `config.json` (`erv`).

## Figures

With the emotions that the reward gives a sentence: above {training["threshold"]}, at most {training["top_k"]}, the likeliest when
none is. "heldout" chose threshold and temperature; "audit" chose nothing; "withheld" are phrases that training never saw.

{tables}
## Training

- base model: {base_model or "none, random weights"}
{facts}
## Data

{_data(sources)}
## Limits

It knows its training text's language and phrases; figures on other text will be lower. {_labels_by_model(sources)}A sentence that
hedges between emotions may be given two, and a policy can learn to hedge.
"""


def _front_matter(sources: Sequence[Mapping[str, Any]], base_model: str | None) -> str:
    """The YAML that model hubs read; what is not known of every source is left out."""
    matter: dict[str, Any] = {
        "pipeline_tag": "text-classification",
        "tags": ["emotion", "multi-label", "rationale-verifier"],
    }
    if base_model is not None:
        matter["base_model"] = base_model
    if languages := sorted({language for source in sources for language in source["languages"]}):
        matter["language"] = languages
    licences = {source["licence"] for source in sources}
    if len(licences) == 1 and (licence := licences.pop()):
        matter["license"] = licence.lower().replace(" ", "-")  # the hub's spelling, such as cc-by-4.0
    return f"---\n{yaml.safe_dump(matter, sort_keys=False, allow_unicode=True)}---\n"


def _data(sources: Sequence[Mapping[str, Any]]) -> str:
    """Markdown: a row for each source."""
    unknown = "not recorded"
    rows = [["source", "file", "rows", "language", "licence", "labelled by"]]
    rows += [
        [
            source["source"],
            source["file"],
            ", ".join(f"{count} {split}" for split, count in source["rows"].items()),
            ", ".join(source["languages"]) or unknown,
            source["licence"] or unknown,
            source["labelled_by"] or unknown,
        ]
        for source in sources
    ]
    return _grid(rows)


def _labels_by_model(sources: Sequence[Mapping[str, Any]]) -> str:
    """A warning where a source names its labeller and that is not people; erv.label writes the language model's name."""
    models = [source["source"] for source in sources if source["labelled_by"] not in (None, "human")]
    return f"Labels by a language model ({', '.join(models)}) hold that\nmodel's mistakes. " if models else ""
