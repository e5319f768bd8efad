"""One clip, decoded: its pictures and sound where they can be had, and the facts about its files either way.

What is done about a defect is decided elsewhere (`erv.data.media.defects`); here nothing is replaced and nothing raised.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np

from erv.data.media.audio import read_audio
from erv.data.media.container import Limits, opened
from erv.data.media.errors import MediaError, MissingMedia
from erv.data.media.frames import frame_files, pictures_of, read_frames
from erv.data.media.resize import fit
from erv.types import Wanted

Pair = tuple[np.ndarray | None, np.ndarray | None]
Change = Callable[[np.ndarray | None, np.ndarray | None], Pair]  # pictures and sound -> the same, changed
FOLDER_FPS = 3.0  # of a folder of pictures (spec: policy.md section 5)


@dataclass(frozen=True, slots=True)
class Facts:
    """What the files of a clip hold.

    `video` and `audio` are the codecs, None where there is no such track; `video_problem` and `audio_problem` say why a track
    cannot be used. `frames` counts pictures, `seconds` is the length of the picture track (of the sound, without one), `fps`
    the mean rate. `missing` lists modalities whose file is not there. `settled` is False where another try may find something
    else.
    """

    video: str | None = None
    audio: str | None = None
    frames: int = 0
    width: int = 0
    height: int = 0
    fps: float = 0.0
    seconds: float = 0.0
    rate: int = 0
    channels: int = 0
    video_problem: str | None = None
    audio_problem: str | None = None
    missing: tuple[str, ...] = ()
    settled: bool = True

    def row(self) -> dict[str, Any]:
        """The facts as a JSON-serialisable dict."""
        return {**asdict(self), "missing": list(self.missing)}

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Facts:
        """The inverse of `row`."""
        return cls(**{**row, "missing": tuple(row["missing"])})


@dataclass(frozen=True, slots=True)
class Decoded:
    """Pictures uint8 `[T, S, S, 3]` and sound float32 `[S]`, None where there are none; and the facts."""

    facts: Facts
    pictures: np.ndarray | None = None
    wave: np.ndarray | None = None


def decode(
    video: str, audio: str | None, wanted: Wanted, limits: Limits, change: Change | None = None
) -> Decoded:  # fmt: skip
    """Decode a clip whose sound is in `audio`, or with the picture in `video`. Raises nothing that a file can cause.

    `change` gets the pictures before they are brought to size, and the sound.
    """
    facts: dict[str, Any] = {}
    pictures, wave = None, None
    missing = []
    if "video" in wanted.modalities:
        try:
            pictures = _pictures(video, wanted, limits, facts)
        except MissingMedia:
            missing.append("video")
        except Exception as error:  # a hostile file can make a decoder raise anything; its kind and text are kept
            facts["video_problem"] = _reason(error)
    if "audio" in wanted.modalities:
        try:
            sound = read_audio(audio or video, wanted.rate, wanted.seconds, limits)
        except MissingMedia:
            missing.append("audio")
        except Exception as error:
            facts["audio_problem"] = _reason(error)
        else:
            if sound is not None:
                wave = sound.wave
                facts |= {"audio": sound.codec, "rate": sound.rate, "channels": sound.channels}
                facts.setdefault("seconds", len(wave) / wanted.rate)
    if change is not None:
        pictures, wave = change(pictures, wave)
    if pictures is not None:
        pictures = fit(pictures, wanted.side, wanted.aspect)
    return Decoded(Facts(**facts, missing=tuple(missing)), pictures, wave)


def _pictures(path: str, wanted: Wanted, limits: Limits, facts: dict[str, Any]) -> np.ndarray:
    if Path(path).is_dir():
        frames = read_frames(path, wanted.num_frames, limits)
        count = len(frame_files(Path(path)))
        facts |= {"video": "pictures", "frames": count, "fps": FOLDER_FPS, "seconds": count / FOLDER_FPS}
    else:
        with opened(path, limits) as container:
            frames, count = pictures_of(container, path, wanted.num_frames, limits)
            stream = container.streams.video[0]
            fps = float(stream.average_rate or stream.guessed_rate or 0)
            length = float(stream.duration * stream.time_base) if stream.duration and stream.time_base else 0.0
            length = length or (container.duration or 0) / av.time_base
            facts |= {"video": stream.codec_context.name, "frames": count, "fps": fps, "seconds": length}
    facts |= {"height": frames.shape[1], "width": frames.shape[2]}
    return frames


def _reason(error: Exception) -> str:
    if isinstance(error, MediaError):
        return error.reason
    return f"cannot be decoded ({type(error).__name__}: {error})"
