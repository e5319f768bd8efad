"""Train and eval mode of the modules of a stage."""

from __future__ import annotations

import lightning.pytorch as pl


class TrainingMode(pl.Callback):
    """Puts what is trained into training mode, and leaves what is frozen in eval mode, when training starts or is resumed.

    `from_pretrained` returns models in eval mode and Lightning leaves modes as they are, so without this dropout is off and
    gradient checkpointing, which asks `layer.training`, does nothing. Validation restores the modes that it met. It is done
    before Lightning counts the modules in eval mode, so that its warning is about frozen parts only.
    """

    def on_fit_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Set the modes; each module's own `train` knows its frozen parts."""
        module.train()
        for name, part in module.named_modules():
            if not part.training and any(p.requires_grad for p in part.parameters(recurse=False)):
                raise RuntimeError(
                    f"{name} has trained weights and is in eval mode; its module's train() leaves it out"
                )
