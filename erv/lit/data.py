"""The DataModules: clips with their tower features or pixels, and labelled sentences for the verifier.

Both serve one Lightning epoch of `steps` batches in an order that depends on (seed, step) only, so a resumed run goes on
with the very next batch at any number of workers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from erv.corpora.base import Corpus
from erv.lit.order import StepBatches
from erv.records import Clip, Split
from erv.verifier import Sentences

Sample = tuple[Clip, dict[str, Tensor]]
Loader = Callable[[list[Clip]], list[dict[str, Tensor]]]


class _Rows(Dataset[Any]):
    """A list as a data set whose batches are lists."""

    def __init__(self, rows: Sequence[Any]) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Any:
        return self.rows[index]


class StepData(pl.LightningDataModule):
    """Training rows in batches by step, dev rows in order. Lightning saves and restores the step of the next batch."""

    def __init__(self, batch_size: int, steps: int, seed: int, eval_batch_size: int = 64) -> None:
        super().__init__()
        self.batch_size, self.steps, self.seed, self.eval_batch_size = batch_size, steps, seed, eval_batch_size
        self.cursor = 0
        self.train_rows: Sequence[Any] = []
        self.dev_rows: Sequence[Any] = []

    def train_dataloader(self) -> DataLoader[Any]:
        """Batches `cursor` to `steps`."""
        batches = StepBatches(len(self.train_rows), self.batch_size, self.steps, self.seed)
        batches.cursor = self.cursor
        return DataLoader(_Rows(self.train_rows), batch_sampler=batches, collate_fn=list)

    def val_dataloader(self) -> DataLoader[Any]:
        """The dev rows."""
        return DataLoader(_Rows(self.dev_rows), batch_size=self.eval_batch_size, collate_fn=list)

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
    """Clips with what `load` gives for them (tower features for the policy, pixels for the towers' warm-up).

    `limit` keeps that many training clips, `dev_limit` that many dev clips: the first ones, which are a random draw in
    every corpus here.
    """

    def __init__(
        self, corpus: Corpus, load: Loader, batch_size: int, steps: int, seed: int, limit: int | None = None,
        dev_limit: int | None = None, eval_batch_size: int = 64,
    ) -> None:  # fmt: skip
        super().__init__(batch_size, steps, seed, eval_batch_size)
        self.corpus, self.load, self.limit, self.dev_limit = corpus, load, limit, dev_limit

    def samples(self, split: Split, limit: int | None = None) -> list[Sample]:
        """The clips of a split with their tensors."""
        clips = self.corpus.clips(split)[:limit]
        return list(zip(clips, self.load(clips), strict=True))

    def setup(self, stage: str) -> None:
        """Load what training and its dev curve need."""
        if stage == "fit" and not self.train_rows:
            self.train_rows = self.samples("train", self.limit)
            self.dev_rows = self.samples("dev", self.dev_limit)


class SentenceData(StepData):
    """Labelled sentences for the verifier; the dev curve is over the held-out ones."""

    def __init__(self, sentences: Sentences, batch_size: int, steps: int, seed: int) -> None:
        super().__init__(batch_size, steps, seed, eval_batch_size=256)
        self.rows = sentences.rows

    def setup(self, stage: str) -> None:
        """Take the rows."""
        if stage == "fit" and not self.train_rows:
            self.train_rows, self.dev_rows = self.rows("train"), self.rows("heldout")
