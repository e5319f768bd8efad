"""Wrong labels put in on purpose, to see how much of them a verifier bears."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from erv.taxonomy import Taxonomy, counterpart

# Emotions that readers take for each other; the first of these that a taxonomy has is the wrong label.
CONFUSED = {
    "anger": ("disgust",), "disgust": ("anger",), "fear": ("surprise",), "surprise": ("fear",), "sadness": ("neutral",),
    "neutral": ("sadness",), "happiness": ("surprise",), "contempt": ("disgust",), "anxiety": ("fear",),
    "helplessness": ("sadness",), "disappointment": ("sadness",),
}  # fmt: skip


class Noise:
    """The share `rate` of rows gets one wrong label instead of its own.

    `shape` "uniform" draws it from all others; "confusion" takes the one that the emotion is most often taken for. What is
    spoiled at a low rate is spoiled at a higher one too, so that runs differ in the noise added and in nothing else.
    """

    def __init__(self, rate: float = 0.0, shape: Literal["uniform", "confusion"] = "uniform") -> None:
        if not 0 <= rate <= 1:
            raise ValueError(f"verifier.data.noise.rate is a share in [0, 1], got {rate}")
        if shape not in ("uniform", "confusion"):
            raise ValueError(f"verifier.data.noise.shape is uniform or confusion, got {shape!r}")
        self.rate, self.shape = rate, shape

    def spoil(self, rows: list[dict[str, Any]], taxonomy: Taxonomy, seed: int) -> list[dict[str, Any]]:
        """The rows, some with another label; the same ones for the same seed."""
        rng = np.random.default_rng([seed, 73])
        places, draws = rng.random(len(rows)), rng.random(len(rows))
        spoiled = []
        for row, place, draw in zip(rows, places, draws, strict=True):
            wrong = self._wrong(row["labels"], taxonomy, draw) if place < self.rate else None
            spoiled.append(row if wrong is None else {**row, "labels": [wrong], "clean_labels": row["labels"]})
        return spoiled

    def _wrong(self, labels: list[str], taxonomy: Taxonomy, draw: float) -> str:
        others = [label for label in taxonomy.labels if label not in labels]
        if self.shape == "confusion":
            table = {counterpart(k, taxonomy.labels): v for k, v in CONFUSED.items() if _has(k, taxonomy)}
            confused = [counterpart(o, taxonomy.labels) for o in table.get(labels[0], ()) if _has(o, taxonomy)]
            others = [label for label in confused if label in others] or others
        return others[int(draw * len(others))]


def _has(label: str, taxonomy: Taxonomy) -> bool:
    return taxonomy.normalise(label) is not None
