"""`python -m erv.train` to which something happens at an exact moment: python -m interrupted WHAT:NUMBER[:MORE] ARGUMENTS…

What happens is real (a signal, a full disk, an error of the allocator); only when is arranged here, and for a judge that is
to be asked, that the policy answers in form.
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
    """As a cluster or a terminal does: to the workers too."""
    os.killpg(0, getattr(signal, name))


def at_end(number, act):
    """When batch `number` has changed the weights, before anything of it is written."""
    end = Counters.on_train_batch_end

    def ended(self, trainer, module, outputs, batch, index):
        if index == number:
            act()
        end(self, trainer, module, outputs, batch, index)

    Counters.on_train_batch_end = ended


def at_rewards(number, act):
    """When what batch `number` has sampled is read."""
    step, score, batches = GRPO.training_step, GRPO.score, []

    def began(self, batch, index):
        batches.append(index)
        return step(self, batch, index)

    def scored(self, batch, rollout):
        if batches[-1] == number:
            act()
        return score(self, batch, rollout)

    GRPO.training_step, GRPO.score = began, scored


def at_save(number, moment):
    """Killed within the `number`-th save of a checkpoint: half written, not yet in its place, without its manifest."""
    replace, declare, counts = Path.replace, Checkpoint.declare, []

    def replaced(path, target):
        if str(target).endswith(".ckpt"):
            counts.append(target)
            if len(counts) == number and moment == "half":
                os.truncate(path, path.stat().st_size // 2)
                send("SIGKILL")
            if len(counts) == number and moment == "written":
                send("SIGKILL")
        return replace(path, target)

    def declared(checkpoint):
        if len(counts) == number and moment == "undeclared":
            send("SIGKILL")
        declare(checkpoint)

    Path.replace = replaced
    Checkpoint.declare = declared


def short_of_memory(number):
    """In batch `number` no micro-batch of more than one clip fits: the allocator is asked for more than there is."""
    add, step, batches = GroupGradient.add_gradient, GRPO.training_step, []

    def began(self, batch, index):
        batches.append(index)
        return step(self, batch, index)

    def added(self, batch, clips, old):
        if batches[-1] == number and len(clips) > 1:
            torch.empty(2**60, dtype=torch.uint8)
        return add(self, batch, clips, old)

    GRPO.training_step, GroupGradient.add_gradient = began, added


def broken(first, last):
    """The loss of batches `first` to `last` is not a number."""
    step = SFT.training_step

    def stepped(self, batch, index):
        loss = step(self, batch, index)
        return loss * float("nan") if first <= index <= last else loss

    SFT.training_step = stepped


def fill(folder):
    """Leave no byte free."""
    with contextlib.suppress(OSError), open(f"{folder}/filler", "wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


def protect(folder):
    """Files that are open stay so; nothing else can be written."""
    subprocess.run(["mount", "--bind", folder, folder], check=True)
    subprocess.run(["mount", "-o", "remount,bind,ro", folder], check=True)


def refuse():
    raise ValueError("the verifier cannot read this")


def turn_back():
    """The clock, by a year, as a machine's does whose battery was empty."""
    now = time.time
    time.time = lambda: now() - 365 * 86400


def arrange(what, number, more):
    if what in ("half", "written", "undeclared"):
        at_save(number, what)
    elif what == "batch":
        at_end(number, lambda: send("SIGKILL"))
    elif what == "ended":
        at_end(number, lambda: send(more))
    elif what == "everyone":
        os.setpgid(0, 0)
        at_end(number, lambda: send_to_all(more))
    elif what == "rollout":
        at_rewards(number, lambda: send(more))
    elif what == "verifier":
        at_rewards(number, refuse)
    elif what == "full":
        at_end(number, lambda: fill(more))
    elif what == "readonly":
        at_end(number, lambda: protect(more))
    elif what == "memory":
        short_of_memory(number)
    elif what == "nan":
        broken(number, int(more))
    elif what == "answers":
        Processor.decode = lambda self, ids: more
    elif what == "clock":
        at_end(number, turn_back)
    else:
        sys.exit(f"interrupted.py knows no {what!r}")


if __name__ == "__main__":
    given = sys.argv.pop(1).split(":", 2)
    arrange(given[0], int(given[1]), given[2] if len(given) > 2 else "")
    runpy.run_module("erv.train", run_name="__main__", alter_sys=True)
