"""Reading a clip's features from the tower cache against decoding and encoding it again.

    python experiments/speed/media_cache.py FOLDER [--policy tiny|humanomni_0_5b] [--clips 64] [--rounds 5]

FOLDER holds the clips of media_clips.py, or gets them. Random weights of the policy's sizes. Each round reads every clip once
from the cache (mapped files, cast to single precision so that every byte is touched) and encodes it once again, in turn; one
thread. Prints milliseconds of CPU time per clip, medians over rounds, bytes of an entry and the ratio as JSON on the last line.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from media_clips import make
from policy_forward import make as make_policy

from erv.data.clip_reader import ClipReader, Samples
from erv.data.media.settings import MediaSettings
from erv.types import Clip


def seconds(read: Callable[[], object]) -> float:
    """CPU seconds of one call."""
    begun = time.process_time()
    read()
    return time.process_time() - begun


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("--policy", default="tiny")
    parser.add_argument("--clips", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    torch.set_num_threads(1)
    paths = make(Path(given.folder))[: given.clips]
    clips = [Clip(path, path, "sad", "train") for path in paths]
    policy = make_policy(given.policy)
    policy.model.eval()
    with tempfile.TemporaryDirectory() as cache:
        cached = ClipReader(MediaSettings(cache=cache, workers=1), policy).samples(clips)
        anew = ClipReader(MediaSettings(cache=cache, workers=1, cache_towers=False), policy).samples(clips)

        def all_of(samples: Samples) -> Callable[[], object]:
            return lambda: [[value.float() for value in samples[i][1].values()] for i in range(len(samples))]

        rounds = [(seconds(all_of(cached)), seconds(all_of(anew))) for _ in range(given.rounds)]
        entry = sum(value.nbytes for value in cached[0][1].values())
    read, encoded = (1000 * statistics.median(column) / len(clips) for column in zip(*rounds, strict=True))
    ratio = statistics.median(b / a for a, b in rounds)
    print(
        json.dumps({"cache_ms": read, "encode_ms": encoded, "ratio": ratio, "entry_bytes": entry, "clips": len(clips)})
    )


if __name__ == "__main__":
    main()
