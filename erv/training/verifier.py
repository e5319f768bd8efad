"""Training the ERV on pseudo-labelled sentences (paper, stage 2)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from erv.distributed.collectives import all_gather_rows
from erv.training.callbacks.nan_guard import NonFiniteCounter
from erv.training.datamodule import SentenceData
from erv.training.optim import OptimizerSettings
from erv.training.stage import Stage
from erv.training.validation import Means
from erv.verifier.baseline import macro_f1_difference, tfidf_probabilities
from erv.verifier.calibration import best_threshold, calibrate, sigmoid, threshold_sweep
from erv.verifier.calibration_plot import calibration_svg
from erv.verifier.classifier import Verifier, export_verifier
from erv.verifier.losses import Loss
from erv.verifier.metrics import calibration_error, per_class, scores
from erv.verifier.model_card import model_card, scores_table

Row = dict[str, Any]
SPLITS = ("heldout", "audit", "withheld")
PLOT = "calibration.svg"  # in the run's folder


class VerifierTraining(Stage):
    """Multi-label training of a sentence classifier for the labels of the corpus.

    The best threshold and the temperature are chosen on held-out sentences after training, and written beside the weights.

    Args:
        labels: those of the corpus; the verifier may have others.
        folder: the run's folder.
        batch_size: sentences of a step, over all processes.
        threshold: a label's least probability, and
        top_k: most labels of a sentence, as the reward will use them; scores are measured with both.
        max_nonfinite: so many steps in a row that are not finite end the run.
    """

    inputs = "sentences"
    model: Any

    def __init__(
        self,
        verifier: Verifier,
        labels: tuple[str, ...],
        optim: OptimizerSettings,
        folder: str,
        batch_size: int,
        epochs: int,
        loss: Loss,
        threshold: float = 0.1,
        top_k: int = 2,
        max_nonfinite: int = 3,
    ) -> None:
        super().__init__()
        self.verifier, self.optim, self.batch_size, self.epochs = verifier, optim, batch_size, epochs
        self.loss, self.threshold, self.top_k, self.folder = loss, threshold, top_k, Path(folder)
        self.columns, self.nonfinite = verifier.columns(labels), NonFiniteCounter(max_nonfinite)
        self.model = verifier.model
        self.weights: Tensor | None = None
        self.dev = Means("loss")

    def on_fit_start(self) -> None:
        """Compute the class weights from all training rows."""
        data: Any = self.trainer.datamodule
        weights = self.loss.weights(self.verifier.targets([row["labels"] for row in data.train_rows]))
        self.weights = None if weights is None else weights.to(self.device)

    def training_step(self, rows: list[Row], _: int) -> Tensor:
        """The loss of a batch of sentences."""
        loss = self._loss(rows)
        self.log("train/loss", loss, prog_bar=True, batch_size=len(rows), sync_dist=True)
        return loss

    def validation_step(self, rows: list[Row], _: int) -> None:
        """The loss on held-out sentences; a process may have no sentence of the last batch."""
        if rows:
            self.dev.update({"loss": self._loss(rows)}, len(rows))
        elif self.loss.needs_embeddings:  # the other processes gather rows in `_loss`, a collective operation
            width, labels = self.model.config.hidden_size, len(self.verifier.labels)
            all_gather_rows(torch.zeros(0, width, device=self.device))
            all_gather_rows(torch.zeros(0, labels, device=self.device))

    def on_validation_epoch_end(self) -> None:
        """Log the dev loss over all processes."""
        self.log("dev/loss", self.dev.compute()["loss"], prog_bar=True)
        self.dev.reset()

    def _loss(self, rows: list[Row]) -> Tensor:
        """The loss, whose mean over the processes is that of the whole batch; it contrasts sentences of all processes."""
        targets = self.verifier.targets([row["labels"] for row in rows]).to(self.device)
        logits, embeddings = self.verifier.logits([row["text"] for row in rows], self.loss.needs_embeddings)
        if embeddings is None:
            return self.loss(logits.float(), targets, weights=self.weights)
        return self.loss(logits.float(), targets, all_gather_rows(embeddings), self.weights, all_gather_rows(targets))

    def measure(self, data: SentenceData) -> dict[str, Any]:
        """Measure the held-out splits, choose threshold and temperature, and write plot, model card and model."""
        self.verifier.clear_cache()
        scored = {split: self._scored(data.rows(split)) for split in SPLITS if data.rows(split)}
        logits, targets = scored["heldout"]
        columns = list(self.columns.values())
        best = calibrate(logits, targets, self.top_k, columns)
        figures: dict[str, Any] = {
            split: scores(_probabilities(z), t, self.threshold, self.top_k, columns) for split, (z, t) in scored.items()
        }
        classes = per_class(_probabilities(logits), targets, self.threshold, self.top_k, self.columns)
        last = "audit" if "audit" in scored else "heldout"
        last_logits, last_targets = scored[last]
        chosen: dict[str, Any] = {
            "threshold": best.threshold,
            "temperature": best.temperature,
            "chosen_on": "heldout",
            "measured_on": last,
            "macro_f1": scores(_probabilities(last_logits), last_targets, best.threshold, self.top_k, columns)[
                "macro_f1"
            ],
            "ece": calibration_error(_probabilities(last_logits), last_targets),
            "ece_calibrated": calibration_error(sigmoid(last_logits / best.temperature), last_targets),
        }
        baseline = self._baseline(data, scored, best.threshold, last)
        curve = tuple(calibration_error(sigmoid(logits / s), targets) for s in (1.0, best.temperature))
        (self.folder / PLOT).write_text(calibration_svg(best, (curve[0], curve[1]), "held-out sentences"))
        tables, facts = scores_table(figures, classes), self._facts(data)
        chosen["baseline"] = baseline
        base_model, stock = self.verifier.base_model, self.verifier.loads_without_erv
        text = model_card(self.verifier.labels, tables, chosen, facts, data.provenance(), base_model, stock)
        export_verifier(self.verifier, self.folder / "model", chosen, text)
        print(tables)
        print(
            f"threshold {best.threshold:.2f} and temperature {best.temperature:.2f}, chosen on held-out sentences; on {last} "
            f"sentences macro F1 {chosen['macro_f1']:.3f}, calibration error {chosen['ece']:.3f} -> "
            f"{chosen['ece_calibrated']:.3f}; {self.folder / PLOT}"
        )
        print(
            f"TF-IDF with logistic regression on the same rows: macro F1 {baseline['macro_f1']:.3f}; the verifier's is "
            f"{baseline['difference']:+.3f} [{baseline['low']:+.3f}, {baseline['high']:+.3f}] beside it"
        )
        return {**figures, "classes": classes, "chosen": chosen, "baseline": baseline, "sentences": facts}

    def _baseline(
        self, data: SentenceData, scored: Mapping[str, tuple[np.ndarray, np.ndarray]], threshold: float, split: str
    ) -> dict[str, Any]:
        """The figures of TF-IDF with logistic regression on `split` beside the verifier's.

        Each has its best threshold, chosen on held-out sentences by the same rule.
        """
        rows, columns = data.rows("train"), list(self.columns.values())
        train_targets = self.verifier.targets([row["labels"] for row in rows]).numpy().astype(np.int64)
        texts = {name: [row["text"] for row in data.rows(name)] for name in dict.fromkeys(("heldout", split))}
        probabilities = tfidf_probabilities(
            [row["text"] for row in rows], train_targets, [text for name in texts for text in texts[name]]
        )
        count = len(texts["heldout"])
        baseline_threshold = best_threshold(
            threshold_sweep(probabilities[:count], scored["heldout"][1], self.top_k, columns)
        )
        logits, targets = scored[split]
        verifier, baseline = _probabilities(logits), probabilities[-len(targets) :]
        gain = macro_f1_difference(verifier, baseline, targets, columns, (threshold, baseline_threshold), self.top_k)
        figures = scores(baseline, targets, baseline_threshold, self.top_k, columns)
        return {
            "measured_on": split,
            "macro_f1": figures["macro_f1"],
            "micro_f1": figures["micro_f1"],
            "threshold": baseline_threshold,
            "verifier_macro_f1": scores(verifier, targets, threshold, self.top_k, columns)["macro_f1"],
            "difference": gain.value,
            "low": gain.low,
            "high": gain.high,
        }

    def _scored(self, rows: list[Row]) -> tuple[np.ndarray, np.ndarray]:
        """Logits and targets `[N, labels]` of sentences."""
        targets = self.verifier.targets([row["labels"] for row in rows]).numpy().astype(np.int64)
        return self.verifier.predict_logits([row["text"] for row in rows]), targets

    def _facts(self, data: SentenceData) -> Mapping[str, Any]:
        """What the model card says of the training."""
        rows = data.rows("train")
        counts = {
            source: sum(row["source"] == source for row in rows) for source in dict.fromkeys(r["source"] for r in rows)
        }
        mislabelled = sum("clean_labels" in row for row in rows)
        return {
            "rows": len(rows),
            "sources": counts,
            "spoiled": mislabelled,
            "loss": self.loss.name,
            "balance": self.loss.balance,
            "threshold": self.threshold,
            "top_k": self.top_k,
        }

    def save(self, folder: str) -> None:
        """Write the verifier."""
        self.verifier.save(folder)


def _probabilities(logits: np.ndarray) -> np.ndarray:
    """Probabilities without the temperature."""
    return sigmoid(logits).astype(np.float32)
