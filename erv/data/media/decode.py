"""Decoding one clip: its frames and waveform as far as they can be decoded, and what its files hold either way.

Nothing is replaced or raised here. What is done about a defect is decided by `erv.data.media.defects`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np

from erv.data.media.audio import read_audio
from erv.data.media.container import Limits, open_container
from erv.data.media.errors import MediaError, MissingMedia
from erv.data.media.frames import image_files, read_frames, read_frames_of
from erv.data.media.resize import fit
from erv.types import MediaSpec

FramesAndWaveform = tuple[np.ndarray | None, np.ndarray | None]
Transform = Callable[[np.ndarray | None, np.ndarray | None], FramesAndWaveform]  # an augmentation of both
FOLDER_FPS = 3.0  # of a folder of images (spec: policy.md section 5)


@dataclass(frozen=True, slots=True)
class MediaInfo:
    """What the files of a clip hold. The field names are those of the rows on disk."""

    video: str | None = None
    """Codec of the picture track ("pictures" for a folder of images); None without one."""
    audio: str | None = None
    """Codec of the sound track; None without one."""
    frames: int = 0
    """Frames of the picture track."""
    width: int = 0
    height: int = 0
    """Pixels of a frame, upright."""
    fps: float = 0.0
    """Mean frames per second."""
    seconds: float = 0.0
    """Duration of the picture track; of the sound, without one."""
    rate: int = 0
    """Samples per second of the sound."""
    channels: int = 0
    """Channels of the sound."""
    video_problem: str | None = None
    """Why the picture track cannot be used."""
    audio_problem: str | None = None
    """Why the sound cannot be used."""
    missing: tuple[str, ...] = ()
    """Modalities whose file does not exist."""
    settled: bool = True
    """Whether decoding again would give the same; False after a time limit or a crash, and then it is not recorded."""

    def row(self) -> dict[str, Any]:
        """The record as a JSON-serialisable dict."""
        return {**asdict(self), "missing": list(self.missing)}

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> MediaInfo:
        """The inverse of `row`."""
        return cls(**{**row, "missing": tuple(row["missing"])})


@dataclass(frozen=True, slots=True)
class DecodedClip:
    """A decoded clip."""

    info: MediaInfo
    frames: np.ndarray | None = None
    """uint8 RGB `[num_frames, side, side, 3]`; None without a usable picture track."""
    waveform: np.ndarray | None = None
    """float32 `[samples]`, mono; None without a usable sound track."""


def decode(
    video: str, audio: str | None, spec: MediaSpec, limits: Limits, transform: Transform | None = None
) -> DecodedClip:
    """Decode a clip. Raises nothing that a file can cause: problems are in the result's `info`.

    Args:
        video: Path of the video file or of a folder of images.
        audio: Path of the sound; None: in `video`.
        spec: What the policy takes of a clip: modalities, number and size of frames, seconds and rate of sound.
        limits: The largest files that are read.
        transform: An augmentation; it gets the frames before they are resized, and the waveform.
    """
    info: dict[str, Any] = {}
    frames, waveform = None, None
    missing = []
    if "video" in spec.modalities:
        try:
            frames = _decode_frames(video, spec, limits, info)
        except MissingMedia:
            missing.append("video")
        except Exception as error:  # a damaged file can make a decoder raise anything; its type and text are recorded
            info["video_problem"] = _reason(error)
    if "audio" in spec.modalities:
        try:
            sound = read_audio(audio or video, spec.rate, spec.seconds, limits)
        except MissingMedia:
            missing.append("audio")
        except Exception as error:  # as above
            info["audio_problem"] = _reason(error)
        else:
            if sound is not None:
                waveform = sound.waveform
                info |= {"audio": sound.codec, "rate": sound.rate, "channels": sound.channels}
                info.setdefault("seconds", len(waveform) / spec.rate)
    if transform is not None:
        frames, waveform = transform(frames, waveform)
    if frames is not None:
        frames = fit(frames, spec.side, spec.aspect)
    return DecodedClip(MediaInfo(**info, missing=tuple(missing)), frames, waveform)


def _decode_frames(path: str, spec: MediaSpec, limits: Limits, info: dict[str, Any]) -> np.ndarray:
    """The sampled frames uint8 `[num_frames, H, W, 3]`; what the file holds is entered in `info`."""
    if Path(path).is_dir():
        frames = read_frames(path, spec.num_frames, limits)
        count = len(image_files(Path(path)))
        info |= {"video": "pictures", "frames": count, "fps": FOLDER_FPS, "seconds": count / FOLDER_FPS}
    else:
        with open_container(path, limits) as container:
            frames, count = read_frames_of(container, path, spec.num_frames, limits)
            stream = container.streams.video[0]
            fps = float(stream.average_rate or stream.guessed_rate or 0)
            seconds = float(stream.duration * stream.time_base) if stream.duration and stream.time_base else 0.0
            seconds = seconds or (container.duration or 0) / av.time_base
            info |= {"video": stream.codec_context.name, "frames": count, "fps": fps, "seconds": seconds}
    info |= {"height": frames.shape[1], "width": frames.shape[2]}
    return frames


def _reason(error: Exception) -> str:
    if isinstance(error, MediaError):
        return error.reason
    return f"cannot be decoded ({type(error).__name__}: {error})"
