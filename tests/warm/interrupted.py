"""`python -m erv.train` to which something happens at an exact moment: python -m interrupted MOMENT ARGUMENTS…

The moment is `<what>:<number>`: the process is really killed, the signal really sent; only when is arranged here.
"""

import os
import runpy
import signal
import sys
from pathlib import Path

from erv.checkpoints import Checkpoint
from erv.lit.axes import Axes


def kill():
    os.kill(os.getpid(), signal.SIGKILL)


def in_batch(number):
    """Killed when a batch is trained on, before anything of it is written."""
    end = Axes.on_train_batch_end

    def ended(self, trainer, module, outputs, batch, index):
        return kill() if index == number else end(self, trainer, module, outputs, batch, index)

    Axes.on_train_batch_end = ended


def at_save(number, moment):
    """Killed within the `number`-th save of a checkpoint: half written, not yet in its place, without its manifest."""
    replace, declare, counts = Path.replace, Checkpoint.declare, []

    def replaced(path, target):
        if str(target).endswith(".ckpt"):
            counts.append(target)
            if len(counts) == number and moment == "half":
                os.truncate(path, path.stat().st_size // 2)
                kill()
            if len(counts) == number and moment == "written":
                kill()
        return replace(path, target)

    def declared(checkpoint):
        if len(counts) == number and moment == "undeclared":
            kill()
        declare(checkpoint)

    Path.replace = replaced
    Checkpoint.declare = declared


if __name__ == "__main__":
    what, _, count = sys.argv.pop(1).partition(":")
    in_batch(int(count)) if what == "batch" else at_save(int(count), what)
    runpy.run_module("erv.train", run_name="__main__", alter_sys=True)
