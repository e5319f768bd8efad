"""200 clips such as emotion data sets hold: seconds long, h264 with sound, a few of them larger, longer or older."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from tqdm import tqdm

# (how many, suffix, codec, width, height, seconds, frames a second, pictures between entry points)
KINDS = (
    (120, ".mp4", "libx264", 640, 360, 3.0, 25, 250),
    (40, ".mp4", "libx264", 224, 224, 2.0, 30, 250),
    (15, ".mp4", "libx264", 1280, 720, 3.0, 25, 250),
    (15, ".mp4", "libx264", 640, 360, 12.0, 25, 50),
    (10, ".avi", "mpeg4", 640, 360, 3.0, 25, 12),
)
RATE = 44100


def make(folder: Path) -> list[str]:
    """Write the clips that are not there yet; their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    kinds = [kind for kind in KINDS for _ in range(kind[0])]
    paths = [folder / f"{number:03d}{kind[1]}" for number, kind in enumerate(kinds)]
    for number, (path, kind) in enumerate(tqdm(list(zip(paths, kinds, strict=True)), unit="clip", disable=None)):
        if not path.is_file():
            partial = path.with_name(f"partial{path.suffix}")
            _write(partial, number, *kind[2:])
            partial.replace(path)
    return [str(path) for path in paths]


def _write(path: Path, seed: int, codec: str, width: int, height: int, seconds: float, fps: int, gop: int) -> None:
    rng = np.random.default_rng(seed)
    scene = rng.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    grain = rng.integers(0, 24, (height, width, 3), dtype=np.uint8)
    with av.open(str(path), "w") as container:
        options = {"preset": "medium", "crf": "23"} if codec == "libx264" else {"qscale": "5"}
        video = container.add_stream(codec, rate=fps, options=options)
        video.width, video.height, video.pix_fmt, video.gop_size = width, height, "yuv420p", gop
        audio = container.add_stream("aac" if codec == "libx264" else "mp3", rate=RATE)
        audio.layout = "stereo"
        for index in range(int(seconds * fps)):
            moved = np.roll(scene, (index, 2 * index), (0, 1))[:height, :width] // 2 + np.roll(grain, index, 1)
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(moved), format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, fps)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        time = np.arange(int(RATE * seconds)) / RATE
        wave = np.stack([0.2 * np.sin(2 * np.pi * pitch * time) for pitch in (220.0, 330.0)]).astype(np.float32)
        block = av.AudioFrame.from_ndarray(wave, format="fltp", layout="stereo")
        block.sample_rate, block.pts, block.time_base = RATE, 0, Fraction(1, RATE)
        for piece in av.AudioResampler(format=audio.format.name, layout="stereo", rate=RATE).resample(block):
            container.mux(audio.encode(piece))
        container.mux(audio.encode(None))
