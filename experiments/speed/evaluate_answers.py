"""Evaluation throughput: clips a second at several batch sizes on the tiny policy, and the memory of each.

    python experiments/speed/evaluate_answers.py [--rounds 5] [--clips 64]

Each batch size runs in a process of its own, in turn, round by round; two sampled answers and a greedy one per clip, always
76 tokens long (random weights with an end token that cannot come), written to predictions.jsonl as evaluation writes them.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BATCHES = (1, 8, 32)
TOKENS = 76


def measure(batch: int, clips: int) -> dict[str, float]:
    """Seconds of one evaluation's answers, CPU and wall, and the peak memory of this process."""
    import torch
    from grpo_clips import MODALITIES, load

    from erv.evaluation.generate import generate_predictions
    from erv.evaluation.predictions import PredictionFile
    from erv.evaluation.settings import EvaluationSettings
    from erv.taxonomy import DFEW

    torch.set_num_threads(1)
    policy, samples, _ = load(clips + 16)  # a part of them is no train clip
    samples = samples[:clips]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    plan = EvaluationSettings(samples=2, max_new_tokens=TOKENS, batch_size=batch)
    with tempfile.TemporaryDirectory() as folder:
        file = PredictionFile(Path(folder) / "predictions.jsonl")
        wall, cpu = time.perf_counter(), time.process_time()
        for decoding in plan.decodings:
            for found in generate_predictions(policy, samples, MODALITIES, plan, decoding, DFEW, seed=0):
                file.append(found)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        assert (Path(folder) / "predictions.jsonl").read_text().count("\n") == 3 * clips
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "clips_per_s": clips / wall,
        "cpu_s_per_clip": cpu / clips,
        "peak_mb": peak / 1024,
        "before_mb": before / 1024,
    }


def main() -> None:
    """Measure every batch size in turn, and print medians."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clips", type=int, default=64)
    parser.add_argument("--batch", type=int)
    given = parser.parse_args()
    if given.batch:
        print(json.dumps(measure(given.batch, given.clips)))
        return
    found: dict[int, list[dict[str, float]]] = {batch: [] for batch in BATCHES}
    for _ in range(given.rounds):
        for batch in BATCHES:
            command = [sys.executable, __file__, "--batch", str(batch), "--clips", str(given.clips)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            found[batch].append(json.loads(done.stdout.splitlines()[-1]))
    print("| batch | clips/s | CPU s per clip | lowest | highest | peak memory, MB | of that before |")
    print("|---|---|---|---|---|---|---|")
    for batch, runs in found.items():
        middle = {name: statistics.median(run[name] for run in runs) for name in runs[0]}
        cpu = [run["cpu_s_per_clip"] for run in runs]
        print(
            f"| {batch} | {middle['clips_per_s']:.1f} | {middle['cpu_s_per_clip']:.4f} | {min(cpu):.4f} | {max(cpu):.4f} | "
            f"{middle['peak_mb']:.0f} | {middle['before_mb']:.0f} |"
        )


if __name__ == "__main__":
    main()
