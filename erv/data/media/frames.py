"""Reading a clip's sampled frames, and no more of the file than they need."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from PIL import Image, UnidentifiedImageError

from erv.data.media.container import Limits, VideoPackets, open_container, read_video_packets
from erv.data.media.errors import CorruptMedia, MissingMedia, NoVideo

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
_SEEK_COST = 12  # packets: a seek costs about as much as decoding so many


def frame_indices(total: int, num_frames: int) -> list[int]:
    """The frames that the paper's policy sees: the middles of `num_frames` equal parts of `total`, rounded half to even.

    Equal to the released sampling (spec: policy.md section 5); a clip shorter than `num_frames` repeats indices.
    """
    if total < 1 or num_frames < 1:
        raise ValueError(f"frame sampling needs total >= 1 and num_frames >= 1, got {total} and {num_frames}")
    part = float(total - 1) / num_frames
    return [int(np.round(part * (i + 0.5) + 1e-6)) for i in range(num_frames)]


def read_frames(path: str, num_frames: int, limits: Limits | None = None, threads: int = 1) -> np.ndarray:
    """Read the frames of a clip that `frame_indices` names.

    Args:
        path: A video file, or a folder of images whose sorted names are the frames.
        num_frames: How many frames to sample.
        limits: The largest file that is read.
        threads: Of the decoder (0: as many as it likes). With one, frames that no other refers to are decoded only when
            they are sampled; with more, all are.

    Returns:
        uint8 RGB `[num_frames, H, W, 3]`, upright.

    Raises:
        MissingMedia, CorruptMedia, NoVideo: The file cannot be read.
    """
    limits = limits or Limits()
    if Path(path).is_dir():
        return _read_image_folder(Path(path), num_frames, limits)
    with open_container(path, limits) as container:
        return read_frames_of(container, path, num_frames, limits, threads)[0]


def read_frames_of(
    container: InputContainer, path: str, num_frames: int, limits: Limits, threads: int = 1
) -> tuple[np.ndarray, int]:
    """The sampled frames uint8 `[num_frames, H, W, 3]` of an opened file, and how many frames it holds."""
    if not container.streams.video:
        raise NoVideo(path, "has no picture track", "replace the file, or use media.modalities=[audio]")
    stream = container.streams.video[0]
    limits.check(path, pixels=stream.codec_context.width * stream.codec_context.height)
    stream.codec_context.thread_count = threads
    stream.thread_type = "NONE" if threads == 1 else "AUTO"
    packets = read_video_packets(container, path, limits)
    frames: dict[int, np.ndarray] = {}
    total, indices = len(packets.times), []
    if packets.timed:
        indices = frame_indices(total, num_frames)
        frames = _decode_by_seeking(container, path, packets, sorted(set(indices)), limits, skip=threads == 1)
    if not packets.timed or len(frames) < len(set(indices)):
        # Packets have no times, or wrong ones: decode everything, and count what comes out.
        total = sum(1 for _ in _decode_all(path, limits))
        if total == 0:
            raise NoVideo(path, "decodes to 0 frames")
        indices = frame_indices(total, num_frames)
        sampled = set(indices)
        decoded = ((index, frame) for index, frame in enumerate(_decode_all(path, limits)) if index in sampled)
        frames = {index: _upright_rgb(frame) for index, frame in decoded}
    shapes = {frame.shape for frame in frames.values()}
    if len(shapes) > 1:
        raise CorruptMedia(path, f"changes its size within the clip ({', '.join(map(str, sorted(shapes)))})")
    return np.stack([frames[index] for index in indices]), total


def _decode_by_seeking(
    container: InputContainer, path: str, packets: VideoPackets, indices: Sequence[int], limits: Limits, skip: bool
) -> dict[int, np.ndarray]:
    """Decode the frames at `indices` (sorted), each from the nearest keyframe before it; index -> frame `[H, W, 3]`.

    With `skip`, frames that no other frame refers to are not decoded unless they are asked for. That changes no pixel of the
    others, and is possible with one decoder thread only. Frames that a wrong time stamp hides are absent from the result.
    """
    stream = container.streams.video[0]
    index_of_time = {packets.times[index]: index for index in indices}
    frames: dict[int, np.ndarray] = {}
    for run in _group_by_seek(packets, indices):
        remaining = {packets.times[index] for index in run}
        keyframe = packets.keyframes[max(bisect_right(packets.keyframes, min(remaining)) - 1, 0)]
        try:
            container.seek(keyframe, stream=stream, backward=True, any_frame=False)
        except av.error.FFmpegError:  # a format without an index
            return frames
        for packet in container.demux(stream):
            if skip and packet.pts is not None:
                stream.codec_context.skip_frame = "DEFAULT" if packet.pts in remaining else "NONREF"
            for frame in packet.decode():
                if frame.pts in remaining:
                    _check_frame(frame, path, limits)
                    frames[index_of_time[frame.pts]] = _upright_rgb(frame)
                    remaining.discard(frame.pts)
            if not remaining:
                break
    stream.codec_context.skip_frame = "DEFAULT"
    return frames


def _group_by_seek(packets: VideoPackets, indices: Sequence[int]) -> list[list[int]]:
    """Cut `indices` into runs where seeking to the next keyframe is cheaper than decoding all packets up to it."""
    runs: list[list[int]] = []
    for index in indices:
        keyframe = packets.keyframes[max(bisect_right(packets.keyframes, packets.times[index]) - 1, 0)]
        if runs and bisect_left(packets.times, keyframe) - runs[-1][-1] <= _SEEK_COST:
            runs[-1].append(index)
        else:
            runs.append([index])
    return runs


def _decode_all(path: str, limits: Limits) -> Iterator[av.VideoFrame]:
    """Every frame of the picture track."""
    with open_container(path, limits) as container:
        for frame in container.decode(video=0):
            _check_frame(frame, path, limits)
            yield frame


def _upright_rgb(frame: av.VideoFrame) -> np.ndarray:
    """uint8 RGB `[H, W, 3]`, rotated as the file says it is to be shown: phones record upright video lying down."""
    quarters = round(frame.rotation / 90) % 4  # counterclockwise
    return np.rot90(frame.to_ndarray(format="rgb24"), quarters)


def _check_frame(frame: av.VideoFrame, path: str, limits: Limits) -> None:
    limits.check(path, pixels=frame.width * frame.height)  # the header may have declared fewer
    if frame.is_corrupt:
        where = f" at {frame.time:.2f} s" if frame.time is not None else ""
        raise CorruptMedia(path, f"has a damaged picture{where}")


def image_files(folder: Path) -> list[Path]:
    """The images of a folder in the order of their names, which is that of the frames."""
    return sorted(file for file in folder.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES)


def _read_image_folder(folder: Path, num_frames: int, limits: Limits) -> np.ndarray:
    if not folder.is_dir():
        raise MissingMedia(str(folder), "no such folder", "check data.root and the row that names it")
    files = image_files(folder)
    if not files:
        raise NoVideo(str(folder), "holds no pictures", f"put {', '.join(IMAGE_SUFFIXES)} files there or leave it out")
    indices = frame_indices(len(files), num_frames)
    frames = {index: _read_image(files[index], limits) for index in set(indices)}
    if len({frame.shape for frame in frames.values()}) > 1:
        raise CorruptMedia(str(folder), "holds pictures of several sizes")
    return np.stack([frames[index] for index in indices])


def _read_image(file: Path, limits: Limits) -> np.ndarray:
    try:
        with Image.open(file) as image:
            limits.check(str(file), pixels=image.width * image.height)
            return np.asarray(image.convert("RGB"))
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise CorruptMedia(str(file), f"cannot be read ({error})") from error
