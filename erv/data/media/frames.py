"""Pictures of a clip: which frames, and reading no more of the file than they need."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from PIL import Image, UnidentifiedImageError

from erv.data.media.container import Limits, Packets, opened, picture_packets
from erv.data.media.errors import CorruptMedia, MissingMedia, NoVideo

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
_SEEK_AHEAD = 12  # packets that are rather decoded than jumped over: a seek costs about that many
Pictures = dict[int, np.ndarray]


def frame_indices(total: int, num_frames: int) -> list[int]:
    """The frames the paper's policy sees: the middle of `num_frames` equal parts of `total` frames, rounded half to even.

    Equal to the released sampling (spec: policy.md section 5); a clip shorter than `num_frames` repeats indices.
    """
    if total < 1 or num_frames < 1:
        raise ValueError(f"frame sampling needs total >= 1 and num_frames >= 1, got {total} and {num_frames}")
    part = float(total - 1) / num_frames
    return [int(np.round(part * (i + 0.5) + 1e-6)) for i in range(num_frames)]


def read_frames(path: str, num_frames: int, limits: Limits | None = None, threads: int = 1) -> np.ndarray:
    """`num_frames` pictures of the clip by `frame_indices`, uint8 RGB `[T, H, W, 3]`, upright.

    `path` is a video file, or a folder of pictures whose sorted names are the frames. With one thread, pictures that
    nothing else refers to are not decoded; with more (0: as many as the decoder likes), all are. Raises MissingMedia,
    CorruptMedia or NoVideo.
    """
    limits = limits or Limits()
    if Path(path).is_dir():
        return _read_folder(Path(path), num_frames, limits)
    with opened(path, limits) as container:
        return pictures_of(container, path, num_frames, limits, threads)[0]


def pictures_of(
    container: InputContainer, path: str, num_frames: int, limits: Limits, threads: int = 1
) -> tuple[np.ndarray, int]:
    """The chosen pictures `[T, H, W, 3]` of an opened file, and how many pictures it holds."""
    if not container.streams.video:
        raise NoVideo(path, "has no picture track", "replace the file, or use media.modalities=[audio]")
    stream = container.streams.video[0]
    limits.refuse(path, pixels=stream.codec_context.width * stream.codec_context.height)
    stream.codec_context.thread_count = threads
    stream.thread_type = "NONE" if threads == 1 else "AUTO"
    packets = picture_packets(container, path, limits)
    found: Pictures = {}
    total, chosen = len(packets.times), []
    if packets.timed:
        chosen = frame_indices(total, num_frames)
        found = _sought(container, path, packets, sorted(set(chosen)), limits, skip=threads == 1)
    if not packets.timed or len(found) < len(set(chosen)):  # there are no times, or they lied: what comes out counts
        total = sum(1 for _ in _decoded(path, limits))
        if total == 0:
            raise NoVideo(path, "decodes to 0 frames")
        chosen = frame_indices(total, num_frames)
        wanted = set(chosen)
        pictures = ((i, frame) for i, frame in enumerate(_decoded(path, limits)) if i in wanted)
        found = {index: _upright(frame) for index, frame in pictures}
    shapes = {picture.shape for picture in found.values()}
    if len(shapes) > 1:
        raise CorruptMedia(path, f"changes its size within the clip ({', '.join(map(str, sorted(shapes)))})")
    return np.stack([found[index] for index in chosen]), total


def _sought(
    container: InputContainer, path: str, packets: Packets, indices: Sequence[int], limits: Limits, skip: bool
) -> Pictures:
    """The pictures at `indices`, decoding from the nearest picture before each that a decoder can begin at.

    `skip`: pictures that no other refers to are passed over unless they are wanted, which changes no pixel of the others.
    """
    stream = container.streams.video[0]
    wanted = {packets.times[index]: index for index in indices}
    found: Pictures = {}
    for run in _runs(packets, indices):
        rest = {packets.times[index] for index in run}
        begin = packets.keys[max(bisect_right(packets.keys, min(rest)) - 1, 0)]
        try:
            container.seek(begin, stream=stream, backward=True, any_frame=False)
        except av.error.FFmpegError:  # a format without an index
            return found
        for packet in container.demux(stream):
            if skip and packet.pts is not None:
                stream.codec_context.skip_frame = "DEFAULT" if packet.pts in rest else "NONREF"
            for frame in packet.decode():
                if frame.pts in rest:
                    _refuse_damage(frame, path, limits)
                    found[wanted[frame.pts]] = _upright(frame)
                    rest.discard(frame.pts)
            if not rest:
                break
    stream.codec_context.skip_frame = "DEFAULT"
    return found


def _runs(packets: Packets, indices: Sequence[int]) -> list[list[int]]:
    """The indices cut where jumping to the next entry point is cheaper than decoding on to it."""
    runs: list[list[int]] = []
    for index in indices:
        key = packets.keys[max(bisect_right(packets.keys, packets.times[index]) - 1, 0)]
        if runs and bisect_left(packets.times, key) - runs[-1][-1] <= _SEEK_AHEAD:
            runs[-1].append(index)
        else:
            runs.append([index])
    return runs


def _decoded(path: str, limits: Limits) -> Iterator[av.VideoFrame]:
    """Every picture of the track."""
    with opened(path, limits) as container:
        for frame in container.decode(video=0):
            _refuse_damage(frame, path, limits)
            yield frame


def _upright(frame: av.VideoFrame) -> np.ndarray:
    """uint8 RGB `[H, W, 3]`, turned as the file says it is to be shown: telephones write upright pictures lying down."""
    quarters = round(frame.rotation / 90) % 4  # counterclockwise
    return np.rot90(frame.to_ndarray(format="rgb24"), quarters)


def _refuse_damage(frame: av.VideoFrame, path: str, limits: Limits) -> None:
    limits.refuse(path, pixels=frame.width * frame.height)  # a header may have said less
    if frame.is_corrupt:
        where = f" at {frame.time:.2f} s" if frame.time is not None else ""
        raise CorruptMedia(path, f"has a damaged picture{where}")


def frame_files(folder: Path) -> list[Path]:
    """The pictures of a folder in their order, which is that of their names."""
    return sorted(file for file in folder.iterdir() if file.suffix.lower() in PICTURE_SUFFIXES)


def _read_folder(folder: Path, num_frames: int, limits: Limits) -> np.ndarray:
    if not folder.is_dir():
        raise MissingMedia(str(folder), "no such folder", "check data.root and the row that names it")
    files = frame_files(folder)
    if not files:
        raise NoVideo(
            str(folder), "holds no pictures", f"put {', '.join(PICTURE_SUFFIXES)} files there or leave it out"
        )
    chosen = frame_indices(len(files), num_frames)
    read = {index: _picture(files[index], limits) for index in set(chosen)}
    if len({picture.shape for picture in read.values()}) > 1:
        raise CorruptMedia(str(folder), "holds pictures of several sizes")
    return np.stack([read[index] for index in chosen])


def _picture(file: Path, limits: Limits) -> np.ndarray:
    try:
        with Image.open(file) as picture:
            limits.refuse(str(file), pixels=picture.width * picture.height)
            return np.asarray(picture.convert("RGB"))
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise CorruptMedia(str(file), f"cannot be read ({error})") from error
