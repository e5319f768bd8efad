"""Checkpoints of a training run: what is in them, when they are written, which are kept (docs/checkpoints.md)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.fabric.plugins.io import TorchCheckpointIO

from erv.distributed import collectives
from erv.errors import ConfigError
from erv.runs.checkpoints import Checkpoint, best, checkpoint_file, list_checkpoints, prune
from erv.utils.io import replacing
from erv.verifier.classifier import Verifier

# Figures that tell the best checkpoint, and whether a higher value is better; the first that a run measures decides.
WATCHED = {"dev/fcr": True, "dev/war": True, "dev/loss": False}


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes checkpoint files atomically, and reads back tensors and plain values only."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Write a file that is whole or does not exist, synced to the disk."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary, temporary.open("wb") as file:
            torch.save(checkpoint, file)

    def load_checkpoint(
        self, path: Any, map_location: Any = lambda storage, _: storage, weights_only: bool | None = True
    ) -> dict[str, Any]:
        """Read what `save_checkpoint` wrote; a file with any other kind of object is refused, since it could run code."""
        checkpoint: dict[str, Any] = torch.load(path, map_location=map_location, weights_only=True, mmap=True)
        return checkpoint


class Checkpoints(pl.Callback):
    """Saves every `every` batches, at the best dev figure so far and at the end; keeps the last two and the best.

    A batch is over once its metrics are logged and the validation that was due has run. Lightning has no hook there but the
    start of the next batch: a run that resumes from one of these begins with just that batch.
    """

    def __init__(self, folder: Path, every: int) -> None:
        self.folder, self.every = folder, every
        self.figures: dict[str, float] = {}  # the watched dev figure, if it was measured on the present weights

    def setup(self, trainer: pl.Trainer, module: pl.LightningModule, stage: str) -> None:
        """Accept checkpoints without the frozen parts, which are loaded from where the run began."""
        module.strict_loading = False

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Remember the dev figure of these weights."""
        measured = {name: float(value) for name, value in trainer.callback_metrics.items() if name in WATCHED}
        self.figures = next(({name: measured[name]} for name in WATCHED if name in measured), {})

    def on_train_batch_start(self, trainer: pl.Trainer, module: pl.LightningModule, batch: Any, index: int) -> None:
        """Save the state after the batches before `index`, if it is due or the best so far."""
        if index and (index % self.every == 0 or self._is_best(trainer)):
            self.save(trainer, index)
        self.figures = {}

    def on_train_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Save: a run that is interrupted while it is measured need not train again."""
        self.save(trainer, trainer.fit_loop.epoch_loop.batch_progress.current.completed)

    def save(self, trainer: pl.Trainer, batches: int) -> None:
        """Write the state after so many batches, once, or again where it was damaged; every process calls this."""
        file = checkpoint_file(self.folder, batches)
        if any(c.file == file and c.problem() is None for c in list_checkpoints(self.folder)):
            return
        trainer.save_checkpoint(file)
        if trainer.is_global_zero:
            Checkpoint(file, batches, self.figures).write_manifest()
            prune(self.folder, self._best())
        trainer.strategy.barrier()

    def _is_best(self, trainer: pl.Trainer) -> bool:
        """Whether the present weights beat those of all checkpoints; rank 0 decides."""
        name, value = next(iter(self.figures.items()), (None, 0.0))
        if name is None:
            return False
        previous = self._best() if trainer.is_global_zero else None
        better = previous is None or (
            value > previous.figures[name] if WATCHED[name] else value < previous.figures[name]
        )
        return collectives.all_gather_object(better)[0]

    def _best(self) -> Checkpoint | None:
        """The best checkpoint by the first watched figure that any of them has."""
        checkpoints = list_checkpoints(self.folder)
        by_figure = (best(checkpoints, name, higher_is_better) for name, higher_is_better in WATCHED.items())
        return next((checkpoint for checkpoint in by_figure if checkpoint), None)

    def on_save_checkpoint(self, trainer: pl.Trainer, module: pl.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Leave out the frozen parts, and write to the disk what loggers still hold of the batches before."""
        frozen = {name for name, p in module.named_parameters(remove_duplicate=False) if not p.requires_grad}
        state = checkpoint["state_dict"]
        checkpoint["state_dict"] = {name: value for name, value in state.items() if name not in frozen}
        for logger in trainer.loggers:
            logger.save()
            if hasattr(logger.experiment, "flush"):
                logger.experiment.flush()

    def on_load_checkpoint(self, trainer: pl.Trainer, module: pl.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint of other parts than are trained now."""
        trained = {name for name, p in module.named_parameters() if p.requires_grad}
        saved = checkpoint["state_dict"].keys()
        # buffers are in checkpoints, and are no parameters
        in_model = module.state_dict().keys() if saved - trained else ()
        missing = sorted(trained - saved)
        unexpected = [name for name in sorted(saved - trained) if name not in in_model]
        if missing or unexpected:
            raise ConfigError(
                f"the last checkpoint in {self.folder} does not fit the model: it lacks {_first_names(missing)} and has "
                f"{_first_names(unexpected)} that the model has not; it was written by another version of this program: go back "
                "to that (env.json names its commit), or delete the run's folder to begin anew"
            )


def _first_names(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "") or "nothing"


class VerifierCache(pl.Callback):
    """Keeps the verifier's cache of sentences in checkpoints.

    A sentence's logits differ in the last bits with the sentences that share its batch. A run that resumed with an empty cache
    would read sentences in other batches, and no longer repeat the uninterrupted run to the last bit.
    """

    def __init__(self, verifier: Verifier) -> None:
        self.verifier = verifier

    @property
    def state_key(self) -> str:
        """The name of its state in checkpoints, which is older than that of this class."""
        return "VerifierMemory"

    def state_dict(self) -> dict[str, Any]:
        """The cache of each process' verifier."""
        return {"ranks": collectives.all_gather_object(self.verifier.cache_state())}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore it; with another number of processes, each gets the caches of all."""
        caches = state["ranks"]
        for cache in [caches[collectives.rank()]] if len(caches) == collectives.world_size() else caches:
            self.verifier.load_cache_state(cache)
