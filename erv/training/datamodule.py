"""The DataModules: clips with their tower features or pixels, and labelled sentences for the verifier.

Both serve one Lightning epoch of `steps` batches in an order that depends on (seed, step) only, so a resumed run goes on
with the very next batch at any number of workers.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import lightning.pytorch as pl
import torch
from torch.utils.data import DataLoader, Dataset

from erv.config.rules import validation_interval_problem
from erv.data.clip_reader import Sample, Samples
from erv.data.datasets.base import Corpus
from erv.errors import ConfigError
from erv.training.sampler import DevBatches, Draw, Share, StepBatches
from erv.types import Clip
from erv.verifier.dataset import Sentences

Rows = Sequence[Any]
_LATE_S = 600  # at most what SLURM's GraceTime and KillWait usually are


@dataclass(frozen=True)
class Loading:
    """`workers` processes read `prefetch` batches ahead each; clips are sorted by length within `window` batches."""

    workers: int = 0
    prefetch: int = 2
    window: int = 1

    def __post_init__(self) -> None:
        """Check what no type says."""
        for name, least in (("workers", 0), ("prefetch", 1), ("window", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"loader.{name} is at least {least}, got {getattr(self, name)}")


class _Rows(Dataset[Any]):
    """Rows by place, or by place and the pass over the data in which they are shown."""

    def __init__(self, rows: Rows) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int | Draw) -> Any:
        place, turn = index if isinstance(index, tuple) else (index, 0)
        return self.rows.raw(place, turn) if isinstance(self.rows, Samples) else self.rows[place]


def _outlive_signals(worker: int) -> None:
    """Clusters and terminals signal all processes of a run; its workers serve on, so that a batch can come to its end.

    SIGTERM, which torch sends to workers as well, ends them late.
    """
    for number in (signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(_LATE_S))


class StepData(pl.LightningDataModule):
    """Training rows in batches by step, dev rows in order. Lightning saves and restores the step of the next batch."""

    def __init__(
        self, batch_size: int, steps: int, seed: int, eval_batch_size: int = 64, loading: Loading | None = None
    ) -> None:  # fmt: skip
        super().__init__()
        self.batch_size, self.steps, self.seed, self.eval_batch_size = batch_size, steps, seed, eval_batch_size
        self.loading = loading or Loading()
        self.cursor = 0
        self.train_rows: Rows = []
        self.dev_rows: Rows = []

    def order(self) -> StepBatches:
        """The batches of the whole run."""
        return StepBatches([1.0] * len(self.train_rows), self.batch_size, self.steps, self.seed)

    def train_dataloader(self) -> DataLoader[Any]:
        """Batches `cursor` to `steps`; `batch_size` is the size of one over all processes."""
        batches = self.order()
        batches.cursor, batches.share = self.cursor, self.share
        return self._loader(self.train_rows, batch_sampler=batches)

    def val_dataloader(self) -> DataLoader[Any]:
        """The dev rows."""
        batches = DevBatches(len(self.dev_rows), self.eval_batch_size, self.share)
        return self._loader(self.dev_rows, batch_sampler=batches)

    @property
    def share(self) -> Share:
        """Which process this is, of how many."""
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    def _loader(self, rows: Rows, **how: Any) -> DataLoader[Any]:
        workers = self.loading.workers
        if workers:
            how |= {
                "worker_init_fn": _outlive_signals,
                "prefetch_factor": self.loading.prefetch,
                "persistent_workers": True,
            }
        pinned = torch.cuda.is_available()
        return DataLoader(_Rows(rows), collate_fn=list, num_workers=workers, pin_memory=pinned, **how)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Batches hold records; a module moves the tensors that it makes of them."""
        return batch

    def state_dict(self) -> dict[str, int]:
        """The number of the next training batch."""
        loop = self.trainer.fit_loop.epoch_loop if self.trainer else None
        return {"cursor": loop.batch_progress.current.processed if loop else self.cursor}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on with the batch that `state_dict` named."""
        self.cursor = state["cursor"]


class ClipData(StepData):
    """Clips with what `load` gives for them: tower features, what the towers still have to see, or pixels.

    `load(clips, training)` is called for the train and the dev split; `steps` gives the batches of a run over so many clips as
    it found usable, `length` the tokens of a clip's text.
    """

    def __init__(
        self, corpus: Corpus, load: Callable[[list[Clip], bool], Samples | list[Sample]], batch_size: int,
        steps: Callable[[int], int], seed: int, length: Callable[[Clip], int] | None = None,
        loading: Loading | None = None, eval_batch_size: int = 64,
    ) -> None:  # fmt: skip
        super().__init__(batch_size, 0, seed, eval_batch_size, loading)
        self.corpus, self.load, self.steps_of, self.length = corpus, load, steps, length

    def setup(self, stage: str) -> None:
        """Read what training and its dev curve need."""
        if stage == "fit" and not self.train_rows:
            self.train_rows = self.load(self.corpus.clips("train"), True)
            self.dev_rows = self.load(self.corpus.clips("dev"), False)
            self.steps = self.steps_of(round(sum(clip.weight for clip in self.clips())))
            if self.trainer and (message := validation_interval_problem(self.trainer.val_check_interval, self.steps)):
                raise ConfigError(message)

    def order(self) -> StepBatches:
        """The batches of the whole run, by the clips' weights and lengths."""
        clips = self.clips()
        lengths = [self.length(clip) for clip in clips] if self.length and self.loading.window > 1 else None
        weights = [clip.weight for clip in clips]
        return StepBatches(weights, self.batch_size, self.steps, self.seed, lengths, self.loading.window)

    def clips(self) -> Sequence[Clip]:
        """The training clips that could be used."""
        return self.train_rows.clips if isinstance(self.train_rows, Samples) else [clip for clip, _ in self.train_rows]

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> list[Sample]:
        """The clips' tensors on the device."""
        return [(clip, {name: v.to(device, non_blocking=True) for name, v in row.items()}) for clip, row in batch]

    def on_after_batch_transfer(self, batch: list[Sample], dataloader_idx: int) -> list[Sample]:
        """What is only decoded goes through the towers here, on the device."""
        return self.train_rows.encode(batch) if isinstance(self.train_rows, Samples) else batch


class SentenceData(StepData):
    """Labelled sentences for the verifier; the dev curve is over the held-out ones."""

    def __init__(self, sentences: Sentences, batch_size: int, steps: int, seed: int) -> None:
        super().__init__(batch_size, steps, seed, eval_batch_size=256)
        self.rows, self.provenance = sentences.rows, sentences.provenance

    def setup(self, stage: str) -> None:
        """Take the rows."""
        if stage == "fit" and not self.train_rows:
            self.train_rows, self.dev_rows = self.rows("train"), self.rows("heldout")
