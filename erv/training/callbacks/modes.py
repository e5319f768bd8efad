"""Train and eval mode of the modules of a stage."""

from __future__ import annotations

import lightning.pytorch as pl


class TrainingMode(pl.Callback):
    """Sets training mode for what is trained and eval mode for what is frozen, when training starts or resumes.

    `from_pretrained` returns models in eval mode and Lightning leaves modes as they are. Without this, dropout is off, and
    gradient checkpointing, which asks `layer.training`, does nothing. Validation restores the modes from before it. The modes
    are set before Lightning counts the modules in eval mode, so that its warning is about frozen parts only.
    """

    def on_fit_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Set the modes; each module's own `train` leaves out its frozen parts."""
        module.train()
        for name, part in module.named_modules():
            if not part.training and any(p.requires_grad for p in part.parameters(recurse=False)):
                raise RuntimeError(
                    f"{name} has trained weights and is in eval mode; its module's train() leaves it out"
                )
