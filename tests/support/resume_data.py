"""Trains on nothing but the order of batches; killed in the middle and taken up again, at several numbers of workers.

python resume_data.py FOLDER
"""

import json
import os
import signal
import sys
from pathlib import Path

import lightning.pytorch as pl
import torch

from erv.data.clip_reader import Samples
from erv.runs.checkpoints import newest
from erv.training.callbacks.checkpoint import AtomicCheckpointIO, Checkpoints
from erv.training.datamodule import ClipData, DataLoading
from erv.types import Clip

CLIPS = [Clip(f"c{i:02d}", "x.mp4", "sad", "train", rationale="word " * (i * 7 % 23)) for i in range(22)]
BATCH, STEPS, EVERY, KILLED_AT = 4, 16, 3, 8  # nearly three passes


class Corpus:
    def clips(self, split):
        return CLIPS if split == "train" else CLIPS[:3]


def load(clips, training):
    def read(place, turn):
        return {"video": torch.full((2,), float(place)), "turn": torch.tensor(turn)}

    return Samples(clips, read, list)


class Order(pl.LightningModule):
    """Writes which clips a step got, then lets the process be killed."""

    def __init__(self, log, kill):
        super().__init__()
        self.log_file, self.kill = log, kill
        self.weight = torch.nn.Linear(2, 1)

    def training_step(self, batch, index):
        row = [index, [clip.id for clip, _ in batch], [int(f["turn"]) for _, f in batch]]
        assert all(float(f["video"][0]) == int(clip.id[1:]) for clip, f in batch)
        with self.log_file.open("a") as file:
            file.write(json.dumps(row) + "\n")
        if self.kill and index == KILLED_AT:
            os.kill(os.getpid(), signal.SIGKILL)
        return self.weight(torch.stack([f["video"] for _, f in batch])).mean()

    def validation_step(self, batch, index):
        assert len(batch) == 3

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 1e-3)


def run(folder, workers, kill):
    loading = DataLoading(workers, prefetch=2, window=5)
    data = ClipData(Corpus(), load, BATCH, lambda rows: STEPS, 5, lambda c: len(c.rationale.split()), loading)
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=1,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        default_root_dir=str(folder),
        callbacks=[Checkpoints(folder, EVERY)],
        plugins=[AtomicCheckpointIO()],
        num_sanity_val_steps=0,
        val_check_interval=5,
    )
    trainer.fit(Order(folder / "log", kill), data, ckpt_path=newest(folder), weights_only=True)


def in_a_process(folder, workers, kill):
    """Fork, so that the libraries are imported once."""
    folder.mkdir(parents=True, exist_ok=True)
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            run(folder, workers, kill)
            code = 0
        finally:
            os._exit(code)
    return os.waitpid(pid, 0)[1]


if __name__ == "__main__":
    root = Path(sys.argv[1])
    assert in_a_process(root / "whole", 0, False) == 0
    for count in (0, 1, 2):
        place = root / str(count)
        assert in_a_process(place, count, True) == signal.SIGKILL
        (place / "log").rename(place / "before")
        assert in_a_process(place, count, False) == 0
