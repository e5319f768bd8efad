"""Wrong labels put into training rows on purpose, to measure how much label noise a verifier tolerates."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from erv.taxonomy import Taxonomy, counterpart

# Emotions that readers confuse; the first of these that a taxonomy has is the wrong label.
CONFUSED_WITH = {
    "anger": ("disgust",),
    "disgust": ("anger",),
    "fear": ("surprise",),
    "surprise": ("fear",),
    "sadness": ("neutral",),
    "neutral": ("sadness",),
    "happiness": ("surprise",),
    "contempt": ("disgust",),
    "anxiety": ("fear",),
    "helplessness": ("sadness",),
    "disappointment": ("sadness",),
}


class LabelNoise:
    """Replaces the labels of a share of rows by one wrong label each.

    Rows that are changed at a low rate are changed at a higher one too, to the same label, so that runs at different rates
    differ in the added noise only.

    Args:
        rate: Share of rows in [0, 1].
        shape: "uniform" draws the wrong label from all others; "confusion" takes the one that the row's first emotion is
            most often confused with.
    """

    def __init__(self, rate: float = 0.0, shape: Literal["uniform", "confusion"] = "uniform") -> None:
        if not 0 <= rate <= 1:
            raise ValueError(f"verifier.data.noise.rate is a share in [0, 1], got {rate}")
        if shape not in ("uniform", "confusion"):
            raise ValueError(f"verifier.data.noise.shape is uniform or confusion, got {shape!r}")
        self.rate, self.shape = rate, shape

    def apply(self, rows: list[dict[str, Any]], taxonomy: Taxonomy, seed: int) -> list[dict[str, Any]]:
        """Return the rows, the changed ones with a wrong label and theirs as "clean_labels"; the same for the same seed."""
        rng = np.random.default_rng([seed, 73])
        # two draws for every row, changed or not: what happens to a row then depends on neither the rate nor the others
        row_draws, label_draws = rng.random(len(rows)), rng.random(len(rows))
        noisy = []
        for row, row_draw, label_draw in zip(rows, row_draws, label_draws, strict=True):
            if row_draw < self.rate:
                wrong = self._wrong_label(row["labels"], taxonomy, label_draw)
                noisy.append({**row, "labels": [wrong], "clean_labels": row["labels"]})
            else:
                noisy.append(row)
        return noisy

    def _wrong_label(self, labels: list[str], taxonomy: Taxonomy, draw: float) -> str:
        """Choose one of the other labels by `draw` in [0, 1)."""
        others = [label for label in taxonomy.labels if label not in labels]
        if self.shape == "confusion":
            confused_with = {
                counterpart(emotion, taxonomy.labels): [
                    counterpart(other, taxonomy.labels) for other in confused if taxonomy.normalise(other) is not None
                ]
                for emotion, confused in CONFUSED_WITH.items()
                if taxonomy.normalise(emotion) is not None
            }
            confused = [label for label in confused_with.get(labels[0], []) if label in others]
            others = confused or others
        return others[int(draw * len(others))]
