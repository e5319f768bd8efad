"""`python -m erv.train` with a fault at an exact moment: python -m interrupted FAULT:NUMBER[:DETAIL] ARGUMENTS…

The faults are real (a signal, a full disk, an error of the allocator); methods are replaced only to cause them at the right
moment. FAULT `answers` is none: the policy answers with the text DETAIL, so that judges have something to read.
"""

import contextlib
import os
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path

import torch

from erv.policy.humanomni.processor import Processor
from erv.runs.checkpoints import Checkpoint
from erv.training.callbacks.counters import Counters
from erv.training.grpo import GRPO
from erv.training.grpo_update import GroupGradient
from erv.training.sft import SFT


def send(name):
    os.kill(os.getpid(), getattr(signal, name))


def send_to_all(name):
    """Signal the whole process group, as a cluster or a terminal does: the data workers get the signal, too."""
    os.killpg(0, getattr(signal, name))


def at_batch_end(number, cause):
    """Call `cause` after the optimiser step of batch `number`, before any of its metrics is written."""
    on_train_batch_end = Counters.on_train_batch_end

    def batch_ended(self, trainer, module, outputs, batch, index):
        if index == number:
            cause()
        on_train_batch_end(self, trainer, module, outputs, batch, index)

    Counters.on_train_batch_end = batch_ended


def at_rewards(number, cause):
    """Call `cause` after the rollout of batch `number`, before its rewards are computed."""
    step, score, batches = GRPO.training_step, GRPO.score, []

    def began(self, batch, index):
        batches.append(index)
        return step(self, batch, index)

    def scored(self, batch, rollout):
        if batches[-1] == number:
            cause()
        return score(self, batch, rollout)

    GRPO.training_step, GRPO.score = began, scored


def at_save(number, moment):
    """Kill the process within the `number`-th save of a checkpoint.

    `moment` is half (the temporary file is half written), written (it is whole, but not renamed) or undeclared (the checkpoint is
    renamed, but has no manifest).
    """
    replace, write_manifest, counts = Path.replace, Checkpoint.write_manifest, []

    def replaced(path, target):
        if str(target).endswith(".ckpt"):
            counts.append(target)
            if len(counts) == number and moment == "half":
                os.truncate(path, path.stat().st_size // 2)
                send("SIGKILL")
            if len(counts) == number and moment == "written":
                send("SIGKILL")
        return replace(path, target)

    def manifest_written(checkpoint):
        if len(counts) == number and moment == "undeclared":
            send("SIGKILL")
        write_manifest(checkpoint)

    Path.replace = replaced
    Checkpoint.write_manifest = manifest_written


def out_of_memory(number):
    """Run out of memory in batch `number` for every micro-batch of more than one clip: the allocator is asked for 1 EiB."""
    add, step, batches = GroupGradient.add_gradient, GRPO.training_step, []

    def began(self, batch, index):
        batches.append(index)
        return step(self, batch, index)

    def added(self, batch, clips, old):
        if batches[-1] == number and len(clips) > 1:
            torch.empty(2**60, dtype=torch.uint8)
        return add(self, batch, clips, old)

    GRPO.training_step, GroupGradient.add_gradient = began, added


def nan_loss(first, last):
    """Make the loss of batches `first` to `last` NaN."""
    step = SFT.training_step

    def training_step(self, batch, index):
        loss = step(self, batch, index)
        return loss * float("nan") if first <= index <= last else loss

    SFT.training_step = training_step


def fill_disk(folder):
    """Write a file until the file system of `folder` is full."""
    with contextlib.suppress(OSError), open(f"{folder}/filler", "wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


def make_read_only(folder):
    """Remount `folder` read-only."""
    subprocess.run(["mount", "--bind", folder, folder], check=True)
    subprocess.run(["mount", "-o", "remount,bind,ro", folder], check=True)


def fail_in_verifier():
    raise ValueError("the verifier cannot read this")


def set_clock_back():
    """Set the clock back by a year, as on a machine with an empty battery."""
    now = time.time
    time.time = lambda: now() - 365 * 86400


def arrange(fault, number, detail):
    """Replace the methods at which `fault` is caused."""
    if fault in ("half", "written", "undeclared"):
        at_save(number, fault)
    elif fault == "batch":
        at_batch_end(number, lambda: send("SIGKILL"))
    elif fault == "ended":
        at_batch_end(number, lambda: send(detail))
    elif fault == "everyone":
        os.setpgid(0, 0)
        at_batch_end(number, lambda: send_to_all(detail))
    elif fault == "rollout":
        at_rewards(number, lambda: send(detail))
    elif fault == "verifier":
        at_rewards(number, fail_in_verifier)
    elif fault == "full":
        at_batch_end(number, lambda: fill_disk(detail))
    elif fault == "readonly":
        at_batch_end(number, lambda: make_read_only(detail))
    elif fault == "memory":
        out_of_memory(number)
    elif fault == "nan":
        nan_loss(number, int(detail))
    elif fault == "answers":
        Processor.decode = lambda self, ids: detail
    elif fault == "clock":
        at_batch_end(number, set_clock_back)
    else:
        sys.exit(f"interrupted.py knows no fault {fault!r}")


if __name__ == "__main__":
    fault, number, *detail = sys.argv.pop(1).split(":", 2)
    arrange(fault, int(number), *(detail or [""]))
    runpy.run_module("erv.train", run_name="__main__", alter_sys=True)
