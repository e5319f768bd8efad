"""A short warm-up of both towers as emotion classifiers on the train split.

It replaces SigLIP's and Whisper's pretraining where no weights are available (the demo corpus); public checkpoints have
pretrained towers and do not need it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics.functional.classification import multiclass_accuracy

from erv.data.clip_reader import Sample
from erv.policy.policy import Policy, save_policy
from erv.taxonomy import Taxonomy
from erv.training.callbacks.nan_guard import NonFiniteCounter
from erv.training.datamodule import ClipData
from erv.training.optim import OptimizerSettings
from erv.training.stage import Stage
from erv.training.validation import Means


class TowerWarmup(Stage):
    """Trains the towers through three linear heads on their mean features (picture, voice, both)."""

    inputs = "pixels"
    policy: Policy
    model: Any

    def __init__(
        self,
        policy: Policy,
        taxonomy: Taxonomy,
        optim: OptimizerSettings,
        batch_size: int,
        epochs: int,
        max_nonfinite: int = 3,
    ) -> None:
        super().__init__()
        self.policy, self.taxonomy, self.optim = policy, taxonomy, optim
        self.batch_size, self.epochs, self.nonfinite = batch_size, epochs, NonFiniteCounter(max_nonfinite)
        self.model = policy.model.set_trainable(["vision_tower", "audio_tower"])
        config: Any = policy.model.config  # HumanOmni's: no other family's towers are trained from scratch
        classes = len(taxonomy.labels)
        widths = {"picture": config.vision_config.hidden_size, "voice": config.audio_config.d_model}
        widths["both"] = sum(widths.values())
        self.heads = nn.ModuleDict({name: nn.Linear(width, classes) for name, width in widths.items()})
        self.dev = Means(*widths)

    def logits(self, batch: list[Sample]) -> dict[str, Tensor]:
        """Class logits `[B, E]` of each head."""
        frames = torch.stack([media["video"].float() for _, media in batch]).to(self.device)
        mel = torch.stack([media["audio"].float() for _, media in batch]).to(self.device)
        picture = self.model.encode_video(frames).mean((1, 2))
        voice = self.model.encode_audio(mel).mean(1)
        inputs = {"picture": picture, "voice": voice, "both": torch.cat([picture, voice], 1)}
        return {name: head(inputs[name]) for name, head in self.heads.items()}

    def labels(self, batch: list[Sample]) -> Tensor:
        """Class indices `[B]`."""
        return torch.tensor([self.taxonomy.index(clip.label) for clip, _ in batch], device=self.device)

    def training_step(self, batch: list[Sample], _: int) -> Tensor:
        """The sum of the heads' cross-entropies."""
        gold = self.labels(batch)
        loss = torch.stack([nn.functional.cross_entropy(logits, gold) for logits in self.logits(batch).values()]).sum()
        self.log("train/loss", loss, prog_bar=True, batch_size=len(batch), sync_dist=True)
        return loss

    def validation_step(self, batch: list[Sample], _: int) -> None:
        """The accuracy of each head on the dev split; a process may have no clip of the last batch."""
        if batch:
            gold, classes = self.labels(batch), len(self.taxonomy.labels)
            accuracy = {
                name: multiclass_accuracy(logits, gold, classes, average="micro")
                for name, logits in self.logits(batch).items()
            }
            self.dev.update(accuracy, len(batch))

    def on_validation_epoch_end(self) -> None:
        """Log the accuracies over all processes."""
        for name, accuracy in self.dev.compute().items():
            self.log(f"dev/accuracy/{name}", accuracy, prog_bar=name == "both")
        self.dev.reset()

    @torch.no_grad()
    def measure(self, data: ClipData) -> dict[str, Any]:
        """Accuracy of each head on the dev split."""
        rows = list(data.dev_rows)
        self.model.eval()
        gold = self.labels(rows)
        starts = range(0, len(rows), 64)
        batches = [self.logits(rows[start : start + 64]) for start in starts]
        predicted = {name: torch.cat([logits[name] for logits in batches]).argmax(1) for name in self.heads}
        return {"dev": {name: float((labels == gold).float().mean()) for name, labels in predicted.items()}}

    def save(self, folder: str) -> None:
        """Write the policy with its warmed-up towers."""
        save_policy(self.policy, folder)
