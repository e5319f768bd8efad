"""Decoding 200 clips: ours against decord and against decoding every picture with PyAV.

    python experiments/speed/media.py --engine erv|decord|pyav FOLDER [--threads 1] [--sound]

One step is what training does with a clip whose features it has not: 8 pictures by the paper's rule, padded and resized to 224
by the same code in every engine, and with --sound also 16 kHz mono. At one thread everything happens in this process; at two,
ours uses two decoding processes (as in training), the others two threads. Prints clips a second and CPU seconds (of child
processes too) as JSON on the last line. `--check` compares every pixel with decoding every picture instead.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import av
import numpy as np
from media_clips import make

from erv.data.media.container import Limits
from erv.data.media.decode import decode
from erv.data.media.decode_pool import DecoderPool
from erv.data.media.frames import frame_indices, read_frames
from erv.data.media.resize import fit
from erv.types import MediaSpec

FRAMES, SIDE, RATE, SECONDS = 8, 224, 16000, 30.0


def decord_frames(path: str) -> np.ndarray:
    """The pictures by decord."""
    from decord import VideoReader, cpu

    reader = VideoReader(path, ctx=cpu(0), num_threads=1)
    pictures: np.ndarray = reader.get_batch(frame_indices(len(reader), FRAMES)).asnumpy()
    return pictures


def decord_sound(path: str) -> np.ndarray:
    """The sound by decord, mono at 16 kHz."""
    from decord import AudioReader, cpu

    wave: np.ndarray = AudioReader(path, ctx=cpu(0), sample_rate=RATE, mono=True)[:].asnumpy()[0]
    return wave[: int(RATE * SECONDS)]


def pyav_frames(path: str) -> np.ndarray:
    """Every picture decoded, the chosen ones kept."""
    with av.open(path) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count, stream.thread_type = 1, "NONE"
        pictures = list(container.decode(stream))
        return np.stack([pictures[i].to_ndarray(format="rgb24") for i in frame_indices(len(pictures), FRAMES)])


def pyav_sound(path: str) -> np.ndarray:
    """All of the sound, by PyAV's resampler."""
    with av.open(path) as container:
        resampler = av.AudioResampler(format="fltp", layout="mono", rate=RATE)
        pieces = [p.to_ndarray() for frame in container.decode(audio=0) for p in resampler.resample(frame)]
        return np.concatenate([*pieces, *(p.to_ndarray() for p in resampler.resample(None))], axis=1)[0]


def other(frames: Callable[[str], np.ndarray], sound: Callable[[str], np.ndarray] | None) -> Callable[[str], Any]:
    """One clip by another library, with our resizing."""
    return lambda path: (fit(frames(path), SIDE, "pad"), sound(path) if sound else None)


def run(engine: str, paths: list[str], threads: int, with_sound: bool) -> None:
    """Read every clip once."""
    if engine == "erv":
        spec = MediaSpec(FRAMES, SIDE, "pad", SECONDS, RATE, ("video", "audio") if with_sound else ("video",))
        if threads == 1:
            found = [decode(path, None, spec, Limits()) for path in paths]
        else:
            with DecoderPool[str](spec, Limits(), threads) as decoders:
                found = [decoded for _, decoded in decoders.map((path, path, None) for path in paths)]
        if not all(d.frames is not None and (d.waveform is not None or not with_sound) for d in found):
            raise SystemExit("a clip was not read")
        return
    frames, sound = (decord_frames, decord_sound) if engine == "decord" else (pyav_frames, pyav_sound)
    one = other(frames, sound if with_sound else None)
    if threads == 1:
        for path in paths:
            one(path)
    else:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(one, paths))


def check(paths: list[str]) -> None:
    """Every pixel of ours, and of decord's, against decoding every picture."""
    differ = {"erv": 0, "decord": 0}
    for path in paths:
        whole = pyav_frames(path)
        differ["erv"] += not np.array_equal(read_frames(path, FRAMES), whole)
        seen = decord_frames(path)
        differ["decord"] += seen.shape != whole.shape or not np.array_equal(seen, whole)
    print(json.dumps({"clips": len(paths), "differ": differ}))


def main() -> None:
    """Measure one engine."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", help="where the clips are, or are made")
    parser.add_argument("--engine", choices=("erv", "decord", "pyav"), default="erv")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--sound", action="store_true")
    parser.add_argument("--check", action="store_true")
    given = parser.parse_args()
    paths = make(Path(given.folder))
    if given.check:
        check(paths)
        return
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: given.threads])
    run(given.engine, paths[:4], 1, given.sound)  # what is loaded once
    wall, cpu = time.perf_counter(), _cpu_seconds()
    run(given.engine, paths, given.threads, given.sound)
    wall, cpu = time.perf_counter() - wall, _cpu_seconds() - cpu
    print(json.dumps({"clips_per_s": len(paths) / wall, "cpu_s": cpu, "clips": len(paths)}))


def _cpu_seconds() -> float:
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(u.ru_utime + u.ru_stime for u in used)


if __name__ == "__main__":
    main()
