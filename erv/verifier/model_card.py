"""The model card of a trained verifier, and the table of scores that training prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

SCORES = ("macro_f1", "micro_f1", "macro_precision", "macro_recall", "map", "ece", "labels_per_sentence")


def scores_table(
    scores: Mapping[str, Mapping[str, float]],
    classes: Mapping[str, Mapping[str, float]],
) -> str:
    """Format the scores of each split, and those of each class on held-out sentences, as two Markdown tables."""
    by_split = [["", *scores]]
    by_split += [[name, *(f"{scores[split][name]:.3f}" for split in scores)] for name in SCORES]
    by_class = [["held-out class", "precision", "recall", "f1", "sentences"]]
    by_class += [
        [label, *(f"{row[name]:.3f}" for name in ("precision", "recall", "f1")), f"{row['sentences']:.0f}"]
        for label, row in classes.items()
    ]
    return _markdown_table(by_split) + "\n" + _markdown_table(by_class)


def _markdown_table(rows: Sequence[Sequence[str]]) -> str:
    """Format rows, the first of which is the header, with columns aligned."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [" | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    lines.insert(1, " | ".join("-" * width for width in widths))
    return "".join(f"| {line} |\n" for line in lines)


def model_card(
    labels: Sequence[str],
    tables: str,
    calibration: Mapping[str, Any],
    training: Mapping[str, Any],
    sources: Sequence[Mapping[str, Any]],
    base_model: str | None = None,
    loads_without_erv: bool = True,
) -> str:
    """Write README.md of a model folder: purpose, scores, training, data and limits.

    Args:
        labels: The verifier's labels.
        tables: `scores_table`.
        calibration: Chosen "threshold" and "temperature".
        training: Facts of the training, listed as they are; "threshold" and "top_k" are the reward's.
        sources: `Sentences.provenance()`.
        base_model: Hub id or folder name of the encoder; None for random weights.
        loads_without_erv: `Verifier.loads_without_erv`.
    """
    facts = "".join(f"- {name}: {value}\n" for name, value in training.items())
    loading = (
        "`AutoModelForSequenceClassification` of transformers loads it"
        if loads_without_erv
        else (
            "The head reads the mean over the tokens, which transformers has no class for: read the folder with\n"
            "`erv.verifier.load_verifier(folder)`; `AutoModelForSequenceClassification` alone refuses it"
        )
    )
    return f"""{_front_matter(sources, base_model)}# Emotional Rationale Verifier

A multi-label classifier that tells which emotions a sentence about a person speaks of ({", ".join(labels)}). Made to reward
explanations of emotion recognition (arXiv 2510.23506), not to judge people. {loading}.

Probabilities are `sigmoid(logits)`. Macro F1 on held-out sentences is best above the threshold {calibration["threshold"]:.2f};
`sigmoid(logits / {calibration["temperature"]:.3f})` is calibrated. Both are in `erv.json` and in `config.json` (`erv`).

## Figures

With the emotions that the reward gives a sentence: above {training["threshold"]}, at most {training["top_k"]}, the likeliest when
none is. "heldout" chose threshold and temperature; "audit" chose nothing; "withheld" are phrases that training never saw.

{tables}
## Training

- base model: {base_model or "none, random weights"}
{facts}
## Data

{_data_table(sources)}
## Limits

It knows its training text's language and phrases; figures on other text will be lower. {_label_warning(sources)}A sentence that
hedges between emotions may be given two, and a policy can learn to hedge.
"""


def _front_matter(sources: Sequence[Mapping[str, Any]], base_model: str | None) -> str:
    """Write the YAML header that model hubs read; what is not recorded for every source is left out."""
    header: dict[str, Any] = {
        "pipeline_tag": "text-classification",
        "tags": ["emotion", "multi-label", "rationale-verifier"],
    }
    if base_model is not None:
        header["base_model"] = base_model
    if languages := sorted({language for source in sources for language in source["languages"]}):
        header["language"] = languages
    licences = {source["licence"] for source in sources}
    if len(licences) == 1 and (licence := licences.pop()):
        header["license"] = licence.lower().replace(" ", "-")  # the hub's spelling, such as cc-by-4.0
    return f"---\n{yaml.safe_dump(header, sort_keys=False, allow_unicode=True)}---\n"


def _data_table(sources: Sequence[Mapping[str, Any]]) -> str:
    """Format the provenance of the training data, a row for each source."""
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
    return _markdown_table(rows)


def _label_warning(sources: Sequence[Mapping[str, Any]]) -> str:
    """Name the sources that were labelled by a language model; erv.label writes the model's name into its rows."""
    machine_labelled = [source["source"] for source in sources if source["labelled_by"] not in (None, "human")]
    if not machine_labelled:
        return ""
    return f"Labels by a language model ({', '.join(machine_labelled)}) hold that\nmodel's mistakes. "
