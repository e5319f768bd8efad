"""Training the ERV on pseudo-labelled sentences (paper, stage 2)."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
import numpy as np
from torch import Tensor

from erv.lit.data import SentenceData
from erv.lit.optim import Optim
from erv.verifier import Verifier, scores

Row = dict[str, Any]


class VerifierTraining(pl.LightningModule):
    """Multi-label binary cross-entropy; scores at the threshold and top-k that the reward will use."""

    data = "sentences"

    def __init__(
        self, verifier: Verifier, optim: Optim, batch_size: int, epochs: int, threshold: float = 0.1, top_k: int = 2
    ) -> None:
        super().__init__()
        self.verifier, self.optim, self.batch_size, self.epochs = verifier, optim, batch_size, epochs
        self.threshold, self.top_k = threshold, top_k
        self.model = verifier.model

    def steps(self, rows: int) -> int:
        """Batches of `epochs` passes over `rows` samples."""
        return self.epochs * rows // self.batch_size

    def training_step(self, rows: list[Row], _: int) -> Tensor:
        """One batch of sentences."""
        targets = self.verifier.targets([row["labels"] for row in rows])
        loss = self.verifier.loss([row["text"] for row in rows], targets)
        self.log("train/loss", loss, prog_bar=True, batch_size=len(rows))
        return loss

    def on_validation_start(self) -> None:
        """The weights have changed since the last time."""
        self.verifier.forget()

    def validation_step(self, rows: list[Row], _: int) -> None:
        """Loss on held-out sentences of known phrases."""
        targets = self.verifier.targets([row["labels"] for row in rows])
        loss = self.verifier.loss([row["text"] for row in rows], targets)
        self.log("dev/loss", loss, batch_size=len(rows), prog_bar=True)

    def measure(self, data: SentenceData) -> dict[str, Any]:
        """Scores on the held-out splits: known phrases, and phrases withheld from training."""
        self.verifier.forget()
        result: dict[str, Any] = {}
        for split in ("heldout", "withheld"):
            rows = data.rows(split)
            if rows:
                probabilities = self.verifier([row["text"] for row in rows])
                targets = self.verifier.targets([row["labels"] for row in rows]).numpy().astype(np.int64)
                result[split] = scores(probabilities, targets, self.threshold, self.top_k)
        return result

    def configure_optimizers(self) -> Any:
        """AdamW with its schedule per step."""
        optimiser, schedule = self.optim.build(self.parameters(), self.trainer.estimated_stepping_batches)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def save(self, folder: str) -> None:
        """Write the verifier."""
        self.verifier.save(folder)
