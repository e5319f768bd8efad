"""`python -m erv.train` that records which modules are in training mode at every step: python -m modes FILE [STOP] ARGUMENTS…

FILE (JSONL) gets a row for each step: the modes of all modules with weights, the reference policy included; in step MEASURED,
if the environment variable MODES_MEMORY is set, also the peak of the bytes that the step allocated (the profiler makes a step
several times slower). With STOP the process gets SIGTERM in the step of this number, as from a cluster.
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


def peak_bytes(profiler):
    """The peak of the bytes that were allocated since profiling began and not freed."""
    events = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
    live = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        live += event.nbytes()
        peak = max(peak, live)
    return peak


def record(stage, file, stop):
    """Replace the training step of a stage by one that writes a row to `file`."""
    step = stage.training_step

    def training_step(self, batch, index):
        measured = index == MEASURED and "MODES_MEMORY" in os.environ
        profiler = profile(activities=[ProfilerActivity.CPU], profile_memory=True)
        with profiler if measured else contextlib.nullcontext():
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
            row["bytes"] = peak_bytes(profiler)
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
        record(stage, file, stop)
    runpy.run_module("erv.train", run_name="__main__", alter_sys=True)
