"""Generate clips as h264/aac mp4 files, in parallel; clip `i` depends on (seed, i) alone."""

from __future__ import annotations

import hashlib
import io
import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from tqdm import tqdm

from erv.data.datasets.synthetic import face, grammar, voice
from erv.types import Clip, Split

PRIOR = (0.22, 0.18, 0.22, 0.16, 0.10, 0.05, 0.07)  # of grammar.EMOTIONS
FACE_BLENDED, VOICE_BLENDED = 0.30, 0.40  # shares of clips in which one modality is a blend with another emotion


def strengths(rng: np.random.Generator, emotion: str) -> tuple[dict[str, float], dict[str, float]]:
    """How strongly face and voice show which emotion, as two dicts of emotion -> weight.

    At most one of the two is blended, so both modalities together tell more than either alone.
    """
    intensity = rng.uniform(0.7, 1.2)
    shown, sounded = {emotion: intensity}, {emotion: intensity}
    choice, portion = rng.random(), rng.uniform(0.35, 0.65)
    blend = {emotion: intensity * (1 - portion), grammar.CONFUSED_WITH[emotion]: intensity * portion}
    if choice < FACE_BLENDED:
        shown = blend
    elif choice < FACE_BLENDED + VOICE_BLENDED:
        sounded = blend
    return shown, sounded


def encode(frames: np.ndarray, sound: np.ndarray) -> bytes:
    """Encode an mp4 of `frames` uint8 `[T, H, W, 3]` and `sound` float32 `[S]`; the same input gives the same bytes."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4", options={"fflags": "+bitexact"}) as container:
        options = {"crf": "24", "preset": "ultrafast", "threads": "1", "bf": "0", "flags": "+bitexact"}
        video = container.add_stream("libx264", rate=face.FPS, options=options)
        video.width, video.height, video.pix_fmt = frames.shape[2], frames.shape[1], "yuv420p"
        audio = container.add_stream("aac", rate=voice.RATE, options={"flags": "+bitexact"})
        audio.layout, audio.bit_rate = "mono", 48000
        for index, picture in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, face.FPS)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        block = av.AudioFrame.from_ndarray(sound[None], format="fltp", layout="mono")
        block.sample_rate, block.pts, block.time_base = voice.RATE, 0, Fraction(1, voice.RATE)
        container.mux(audio.encode(block))
        container.mux(audio.encode(None))
    return buffer.getvalue()


def split_of(index: int, dev: int, test: int) -> Split:
    """Clips are independent draws, so the first `test` are the test split, the next `dev` the dev split."""
    return "test" if index < test else "dev" if index < test + dev else "train"


def make_clip(job: tuple[str, int, int, Split]) -> dict[str, Any]:
    """Write one clip of the corpus; `job` is (root, seed, index, split). Returns its manifest row."""
    root, seed, index, split = job
    rng = np.random.default_rng([seed, index])
    emotion = str(rng.choice(grammar.EMOTIONS, p=PRIOR))
    shirt, wall = (str(c) for c in rng.choice(grammar.COLOURS, 2))
    shown, sounded = strengths(rng, emotion)
    data = encode(face.render(rng, shown, shirt, wall), voice.render(rng, sounded))
    name = f"clips/{index:06d}.mp4"
    (Path(root) / name).write_bytes(data)
    clip = Clip(
        id=f"{seed}-{index:06d}",
        video=name,
        label=emotion,
        split=split,
        rationale=grammar.rationale(rng, emotion, shirt, wall),
        source=f"synthetic seed {seed}",
    )
    return {**asdict(clip), "sha256": hashlib.sha256(data).hexdigest()}


def make_clips(root: str, seed: int, clips: int, dev: int, test: int, workers: int) -> Iterator[dict[str, Any]]:
    """Write every clip, and yield the manifest rows in order; the result does not depend on `workers`."""
    (Path(root) / "clips").mkdir(parents=True, exist_ok=True)
    jobs = [(root, seed, index, split_of(index, dev, test)) for index in range(clips)]
    spawn = multiprocessing.get_context("spawn")  # a forked child can deadlock on locks that torch's threads held
    with ProcessPoolExecutor(max_workers=workers, mp_context=spawn) as pool:
        yield from tqdm(pool.map(make_clip, jobs, chunksize=16), total=clips, desc="corpus", unit="clip")
