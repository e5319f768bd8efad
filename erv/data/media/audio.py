"""Sound of a clip: 16 kHz mono, through PyAV's resampler; wav and flac are read by libsndfile."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import soundfile

from erv.data.media.container import Limits, opened
from erv.data.media.errors import CorruptMedia, MissingMedia
from erv.types import AUDIO_RATE

_SNDFILE_SUFFIXES = (".wav", ".flac")
_BLOCK = 1 << 16  # samples read at a time


@dataclass(frozen=True, slots=True)
class Sound:
    """Mono float32 `[S]` at `AUDIO_RATE` Hz, with what the file holds: codec, samples per second and channels."""

    wave: np.ndarray
    codec: str
    rate: int
    channels: int


def read_audio(
    path: str, rate: int = AUDIO_RATE, seconds: float | None = None, limits: Limits | None = None
) -> Sound | None:
    """The sound of a file (mean over channels), its first `seconds` only if given; None when it has no sound track.

    Raises MissingMedia or CorruptMedia. A clip without sound is never turned into silence here: that is a decision.
    """
    limits = limits or Limits()
    if Path(path).is_dir():  # a folder of pictures
        return None
    if not Path(path).is_file():
        raise MissingMedia(path, "no such file", "check data.root and the row that names it")
    sound = _by_sndfile(path, rate, seconds, limits) if Path(path).suffix.lower() in _SNDFILE_SUFFIXES else None
    sound = sound or _by_container(path, rate, seconds, limits)
    if sound is not None and not np.isfinite(sound.wave).all():
        raise CorruptMedia(path, "holds sound that is not a number (NaN or infinite samples)")
    return sound


def _by_sndfile(path: str, rate: int, seconds: float | None, limits: Limits) -> Sound | None:
    """None when libsndfile cannot read it: the suffix may be wrong."""
    limits.refuse(path, size=Path(path).stat().st_size)
    try:
        with soundfile.SoundFile(path) as file:
            limits.refuse(path, seconds=file.frames / file.samplerate)
            blocks = (block.mean(1) for block in file.blocks(_BLOCK, dtype="float32", always_2d=True))
            frames = (_frame(block, file.samplerate) for block in blocks)
            wave = _resampled(frames, rate, seconds)
            return Sound(wave, file.subtype.lower(), file.samplerate, file.channels) if len(wave) else None
    except soundfile.LibsndfileError:
        return None


def _frame(block: np.ndarray, rate: int) -> av.AudioFrame:
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(block[None]), format="fltp", layout="mono")
    frame.sample_rate = rate
    return frame


def _by_container(path: str, rate: int, seconds: float | None, limits: Limits) -> Sound | None:
    with opened(path, limits) as container:
        if not container.streams.audio:
            return None
        context = container.streams.audio[0].codec_context
        wave = _resampled(container.decode(audio=0), rate, seconds)
        return Sound(wave, context.name, context.sample_rate, context.channels) if len(wave) else None


def _resampled(frames: Iterator[av.AudioFrame], rate: int, seconds: float | None) -> np.ndarray:
    """Resample, then average channels: ffmpeg's own downmix weighs channels by layout."""
    resampler = av.AudioResampler(format="fltp", rate=rate)
    most = None if seconds is None else round(seconds * rate)
    pieces: list[np.ndarray] = []
    samples = 0
    for frame in frames:
        for piece in resampler.resample(frame):
            pieces.append(piece.to_ndarray().mean(axis=0))
            samples += piece.samples
        if most is not None and samples >= most:
            break
    else:
        pieces += [piece.to_ndarray().mean(axis=0) for piece in resampler.resample(None)]
    return np.concatenate(pieces).astype(np.float32)[:most] if pieces else np.zeros(0, np.float32)
