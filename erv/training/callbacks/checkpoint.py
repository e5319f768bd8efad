"""Checkpoints of a training run: what is in them, when they are written, which are kept (docs/checkpoints.md)."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.fabric.plugins.io import TorchCheckpointIO

from erv.distributed.collectives import all_gather_object
from erv.errors import ConfigError
from erv.runs.checkpoints import Checkpoint, best, declared, place, prune
from erv.utils.io import replacing
from erv.verifier.classifier import Verifier

_log = logging.getLogger(__name__)
WATCHED = {
    "dev/fcr": True,
    "dev/war": True,
    "dev/loss": False,
}  # what is best: the first that is measured; whether more is better


class DurableIO(TorchCheckpointIO):
    """Files that are whole or not there; read back as tensors and plain values only."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Write through to the disk."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary, temporary.open("wb") as file:
            torch.save(checkpoint, file)

    def load_checkpoint(
        self, path: Any, map_location: Any = lambda storage, _: storage, weights_only: bool | None = True
    ) -> dict[str, Any]:
        """What `save_checkpoint` wrote; a file with any other object in it is refused."""
        found: dict[str, Any] = torch.load(path, map_location=map_location, weights_only=True, mmap=True)
        return found


class Checkpoints(pl.Callback):
    """Saves every `every` batches, at the best dev figure so far and at the end; keeps the last two and the best.

    A batch is over once its metrics are logged and the validation that was due has run. Lightning has no hook there but the
    start of the next batch: a run that goes on from one of these begins with just that batch.
    """

    def __init__(self, folder: Path, every: int) -> None:
        self.folder, self.every = folder, every
        self.figures: dict[str, float] = {}  # of the dev curve, if it was measured on the present weights
        self.frozen: set[str] = set()

    def setup(self, trainer: pl.Trainer, module: pl.LightningModule, stage: str) -> None:
        """Parts that are not trained are not in checkpoints: they are loaded from where the run began."""
        module.strict_loading = False

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Note how good these weights are."""
        found = {name: float(value) for name, value in trainer.callback_metrics.items() if name in WATCHED}
        self.figures = next(({name: found[name]} for name in WATCHED if name in found), {})

    def on_train_batch_start(self, trainer: pl.Trainer, module: pl.LightningModule, batch: Any, index: int) -> None:
        """Save what the batches before `index` have made."""
        if index and (index % self.every == 0 or self._is_best(trainer)):
            self.save(trainer, index)
        self.figures = {}

    def on_train_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Save: a run that is interrupted while it is measured need not train again."""
        self.save(trainer, trainer.fit_loop.epoch_loop.batch_progress.current.completed)

    def save(self, trainer: pl.Trainer, done: int) -> None:
        """Write the state after `done` batches, once; every process calls this."""
        file = place(self.folder, done)
        if any(checkpoint.file == file for checkpoint in declared(self.folder)):
            return
        trainer.save_checkpoint(file)
        if trainer.is_global_zero:
            Checkpoint(file, done, self.figures).declare()
            prune(self.folder, self._best())
        trainer.strategy.barrier()

    def _is_best(self, trainer: pl.Trainer) -> bool:
        """Whether the present weights beat those of all checkpoints; rank 0 decides."""
        name, value = next(iter(self.figures.items()), (None, 0.0))
        if name is None:
            return False
        before = self._best() if trainer.is_global_zero else None
        better = before is None or (value > before.figures[name] if WATCHED[name] else value < before.figures[name])
        return all_gather_object(better)[0]

    def _best(self) -> Checkpoint | None:
        found = declared(self.folder)
        return next((one for name, most in WATCHED.items() if (one := best(found, name, most))), None)

    def on_save_checkpoint(self, trainer: pl.Trainer, module: pl.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Leave out what is not trained; what loggers still hold goes to the disk first."""
        frozen = {name for name, p in module.named_parameters(remove_duplicate=False) if not p.requires_grad}
        state = checkpoint["state_dict"]
        checkpoint["state_dict"] = {name: value for name, value in state.items() if name not in frozen}
        for logger in trainer.loggers:
            logger.save()
            if hasattr(logger.experiment, "flush"):
                logger.experiment.flush()

    def on_load_checkpoint(self, trainer: pl.Trainer, module: pl.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint of other parts than are trained now."""
        wanted = {name for name, p in module.named_parameters() if p.requires_grad}
        absent, other = (
            sorted(wanted - checkpoint["state_dict"].keys()),
            sorted(checkpoint["state_dict"].keys() - wanted),
        )
        known = module.state_dict().keys() if other else ()
        if absent or (other := [name for name in other if name not in known]):
            raise ConfigError(
                f"the last checkpoint in {self.folder} does not fit the model: it lacks {_few(absent)} and has {_few(other)} "
                "that the model has not; it was written by another version of this program: go back to that (env.json names its "
                "commit), or delete the run's folder to begin anew"
            )


def _few(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "") or "nothing"


class VerifierMemory(pl.Callback):
    """Keeps what the verifier has read in checkpoints.

    A sentence's logits differ in the last bits with the sentences that it is read together with, and a run that went on without
    its memory would read them in other company.
    """

    def __init__(self, verifier: Verifier) -> None:
        self.verifier = verifier

    def state_dict(self) -> dict[str, Any]:
        """What each process' verifier remembers."""
        return {"ranks": all_gather_object(self.verifier.memory())}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Remember it; with another number of processes, each remembers everything."""
        from erv.distributed import collectives

        ranks = state["ranks"]
        for memory in [ranks[collectives.rank()]] if len(ranks) == collectives.world_size() else ranks:
            self.verifier.recall(memory)
