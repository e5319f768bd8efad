"""`python -m erv.train` that writes, at every training step, which modules train: python -m modes FILE [STOP] ARGUMENTS…

A row of FILE (JSONL) is a step: the modes of all modules with weights, and of the reference; in step MEASURED, if the
environment variable MODES_MEMORY is set, also the bytes of memory that the step allocated at its peak (the profiler makes a
step several times slower). With STOP a number, the process gets SIGTERM in that step, as from a cluster.
"""

import contextlib
import json
import os
import runpy
import signal
import sys
from pathlib import Path

from torch.profiler import ProfilerActivity, profile

from erv.training.grpo import GRPO
from erv.training.sft import SFT
from erv.training.tower_warmup import TowerWarmup
from erv.training.verifier import VerifierTraining

MEASURED = 1
FROZEN = ("model.vision_tower", "model.audio_tower", "model.bert_model")


def allocated(profiled):
    """Peak of the bytes allocated and not yet freed since profiling began."""
    events = [e for e in profiled.profiler.kineto_results.events() if e.name() == "[memory]"]
    live = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        live += event.nbytes()
        peak = max(peak, live)
    return peak


def watched(stage, file, stop):
    step = stage.training_step

    def training_step(self, batch, index):
        measured = index == MEASURED and "MODES_MEMORY" in os.environ
        memory = profile(activities=[ProfilerActivity.CPU], profile_memory=True)
        with memory if measured else contextlib.nullcontext():
            result = step(self, batch, index)
        modules = {
            name: {"training": module.training, "trained": any(p.requires_grad for p in weights)}
            for name, module in self.named_modules()
            if (weights := list(module.parameters(recurse=False)))
        }
        trained = [(n, m) for n, m in self.named_modules() if not n.startswith(("reference", *FROZEN))]
        dropout = [m.training for n, m in trained if "drop" in n.lower()]
        layers = [m.training for n, m in trained if hasattr(m, "gradient_checkpointing") and ".layers." in n]
        row = {"step": index, "modules": modules, "dropout": dropout, "layers": layers}
        if measured:
            row["bytes"] = allocated(memory)
        with file.open("a") as lines:
            lines.write(json.dumps(row) + "\n")
        if index == stop:
            os.kill(os.getpid(), signal.SIGTERM)
        return result

    stage.training_step = training_step


if __name__ == "__main__":
    file = Path(sys.argv.pop(1))
    stop = int(sys.argv.pop(1)) if sys.argv[1].isdigit() else None
    for stage in (SFT, GRPO, TowerWarmup, VerifierTraining):
        watched(stage, file, stop)
    runpy.run_module("erv.train", run_name="__main__", alter_sys=True)
