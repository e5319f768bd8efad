"""The data modules: clips with their tower features or pixels, and labelled sentences for the verifier.

Both serve one Lightning epoch of `steps` batches in an order that depends on (seed, step) only, so a resumed run continues
with the next batch at any number of workers.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import lightning.pytorch as pl
import torch
from torch.utils.data import DataLoader, Dataset

from erv.data.clip_reader import Sample, Samples
from erv.data.datasets.base import Corpus
from erv.errors import ConfigError
from erv.training.sampler import DevBatches, Draw, Replica, StepBatches
from erv.types import Clip
from erv.verifier.dataset import Sentences

Rows = Sequence[Any]
_WORKER_GRACE_S = 600  # at most what SLURM's GraceTime and KillWait usually are


@dataclass(frozen=True)
class DataLoading:
    """How batches are read and put together."""

    workers: int = 0
    """Processes that read ahead; 0: none."""

    prefetch: int = 2
    """Batches that each of them is ahead."""

    window: int = 1
    """Batches among which clips are sorted by length, so that long texts share batches; 1: not at all."""

    def __post_init__(self) -> None:
        for name, least in (("workers", 0), ("prefetch", 1), ("window", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"loader.{name} is at least {least}, got {getattr(self, name)}")


class _Rows(Dataset[Any]):
    """Rows by number, or by number and the pass over the data in which they are shown (which augmentation depends on)."""

    def __init__(self, rows: Rows) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int | Draw) -> Any:
        number, data_pass = index if isinstance(index, tuple) else (index, 0)
        return self.rows.raw(number, data_pass) if isinstance(self.rows, Samples) else self.rows[number]


def too_rarely(every: Any, batches: Any) -> str | None:
    """What is wrong with a validation after every `every` batches of a run of `batches`, or None.

    None also where one of them is no number of batches.
    """
    if not isinstance(every, int) or not isinstance(batches, int) or every <= batches:
        return None
    return (
        f"trainer.val_check_interval is the batches from one validation to the next, got {every} for a run of {batches}: "
        f"set trainer.val_check_interval={batches} or less, or null for one at the end"
    )


def _ignore_signals(worker: int) -> None:
    """Let a worker go on reading when clusters and terminals signal all processes of a run, so that the batch can be finished.

    SIGTERM, which torch itself sends to workers, ends them after a delay.
    """
    for number in (signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(_WORKER_GRACE_S))


class StepData(pl.LightningDataModule):
    """Training rows in batches by step, dev rows in order. Lightning saves and restores the number of the next batch.

    Args:
        batch_size: rows of a training batch, over all processes.
        steps: batches of the run.
        eval_batch_size: rows of a dev batch, over all processes.
    """

    def __init__(
        self,
        batch_size: int,
        steps: int,
        seed: int,
        eval_batch_size: int = 64,
        loading: DataLoading | None = None,
    ) -> None:
        super().__init__()
        self.batch_size, self.steps, self.seed, self.eval_batch_size = batch_size, steps, seed, eval_batch_size
        self.loading = loading or DataLoading()
        self.cursor = 0  # number of the first batch
        self.train_rows: Rows = []
        self.dev_rows: Rows = []

    def order(self) -> StepBatches:
        """The batches of the whole run."""
        return StepBatches([1.0] * len(self.train_rows), self.batch_size, self.steps, self.seed)

    def train_dataloader(self) -> DataLoader[Any]:
        """This process' part of the batches `cursor` to `steps`."""
        batches = self.order()
        batches.cursor, batches.replica = self.cursor, self.replica
        return self._loader(self.train_rows, batch_sampler=batches)

    def val_dataloader(self) -> DataLoader[Any]:
        """This process' part of the dev rows."""
        batches = DevBatches(len(self.dev_rows), self.eval_batch_size, self.replica)
        return self._loader(self.dev_rows, batch_sampler=batches)

    @property
    def replica(self) -> Replica:
        """The rank of this process, and the number of processes."""
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    def _loader(self, rows: Rows, **options: Any) -> DataLoader[Any]:
        workers = self.loading.workers
        if workers:
            options |= {
                "worker_init_fn": _ignore_signals,
                "prefetch_factor": self.loading.prefetch,
                "persistent_workers": True,
            }
        pinned = torch.cuda.is_available()
        return DataLoader(_Rows(rows), collate_fn=list, num_workers=workers, pin_memory=pinned, **options)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Nothing: batches hold records, and a stage moves the tensors that it makes of them."""
        return batch

    def state_dict(self) -> dict[str, int]:
        """The number of the next training batch."""
        loop = self.trainer.fit_loop.epoch_loop if self.trainer else None
        return {"cursor": loop.batch_progress.current.processed if loop else self.cursor}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue with that batch."""
        self.cursor = state["cursor"]


class ClipData(StepData):
    """Clips with tower features, with what the towers still have to encode, or with pixels.

    Args:
        load: reads the clips of a split; the second argument says whether they are trained on.
        steps: the number of batches of a run over so many rows; asked when the usable clips are known.
        length: the length of a clip's text, if clips are to be sorted by it (`DataLoading.window`).
    """

    def __init__(
        self,
        corpus: Corpus,
        load: Callable[[list[Clip], bool], Samples | list[Sample]],
        batch_size: int,
        steps: Callable[[int], int],
        seed: int,
        length: Callable[[Clip], int] | None = None,
        loading: DataLoading | None = None,
        eval_batch_size: int = 64,
    ) -> None:
        super().__init__(batch_size, 0, seed, eval_batch_size, loading)
        self.corpus, self.load, self.steps_for, self.length = corpus, load, steps, length

    def setup(self, stage: str) -> None:
        """Read the train and the dev split."""
        if stage == "fit" and not self.train_rows:
            self.train_rows = self.load(self.corpus.clips("train"), True)
            self.dev_rows = self.load(self.corpus.clips("dev"), False)
            self.steps = self.steps_for(round(sum(clip.weight for clip in self.clips())))
            if self.trainer and (message := too_rarely(self.trainer.val_check_interval, self.steps)):
                raise ConfigError(message)

    def order(self) -> StepBatches:
        """The batches of the whole run, by the clips' weights and lengths."""
        clips = self.clips()
        lengths = [self.length(clip) for clip in clips] if self.length and self.loading.window > 1 else None
        weights = [clip.weight for clip in clips]
        return StepBatches(weights, self.batch_size, self.steps, self.seed, lengths, self.loading.window)

    def clips(self) -> Sequence[Clip]:
        """The training clips that could be read."""
        return self.train_rows.clips if isinstance(self.train_rows, Samples) else [clip for clip, _ in self.train_rows]

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> list[Sample]:
        """Move the clips' tensors."""
        return [(clip, {name: v.to(device, non_blocking=True) for name, v in row.items()}) for clip, row in batch]

    def on_after_batch_transfer(self, batch: list[Sample], dataloader_idx: int) -> list[Sample]:
        """Run the towers on clips that are only decoded so far: here, on the device, and not in a worker."""
        return self.train_rows.encode(batch) if isinstance(self.train_rows, Samples) else batch


class SentenceData(StepData):
    """Labelled sentences for the verifier; the dev curve is over the held-out ones."""

    def __init__(self, sentences: Sentences, batch_size: int, steps: int, seed: int) -> None:
        super().__init__(batch_size, steps, seed, eval_batch_size=256)
        self.rows, self.provenance = sentences.rows, sentences.provenance

    def setup(self, stage: str) -> None:
        """Take the rows of both splits."""
        if stage == "fit" and not self.train_rows:
            self.train_rows, self.dev_rows = self.rows("train"), self.rows("heldout")
