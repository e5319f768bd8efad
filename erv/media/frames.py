"""Pictures of a clip: which frames, and reading them with PyAV."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av
import numpy as np

from erv.media.errors import CorruptMedia, MissingMedia, NoVideo


def frame_indices(total: int, num_frames: int) -> list[int]:
    """The frames the paper's policy sees: the middle of `num_frames` equal parts of `total` frames, rounded half to even.

    Equal to the released sampling (spec: policy.md section 5); a clip shorter than `num_frames` repeats indices.
    """
    if total < 1 or num_frames < 1:
        raise ValueError(f"frame sampling needs total >= 1 and num_frames >= 1, got {total} and {num_frames}")
    part = float(total - 1) / num_frames
    return [int(np.round(part * (i + 0.5) + 1e-6)) for i in range(num_frames)]


@contextmanager
def opened(path: str) -> Iterator[av.container.InputContainer]:
    """The container at `path`; what PyAV raises while it is open comes out as a MediaError naming the file."""
    if not Path(path).is_file():
        raise MissingMedia(path, "no such file", "check data root and the row that names it")
    try:
        with av.open(path, metadata_errors="ignore") as container:
            yield container
    except (av.error.FFmpegError, UnicodeDecodeError) as error:
        raise CorruptMedia(path, f"cannot be decoded ({error})", "replace the file or leave it out") from error


def read_frames(path: str, num_frames: int) -> np.ndarray:
    """`num_frames` pictures of the clip by `frame_indices`, uint8 RGB `[T, H, W, 3]`.

    Raises MissingMedia, CorruptMedia or NoVideo. The whole track is decoded: containers lie about frame counts, and
    clips are seconds long.
    """
    with opened(path) as container:
        if not container.streams.video:
            raise NoVideo(path, "has no picture track", "replace the file or use audio only")
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        decoded = list(container.decode(stream))
        if not decoded:
            raise NoVideo(path, "decodes to 0 frames", "replace the file or leave it out")
        chosen = frame_indices(len(decoded), num_frames)
        pictures = {index: decoded[index].to_ndarray(format="rgb24") for index in set(chosen)}
    return np.stack([pictures[index] for index in chosen])
