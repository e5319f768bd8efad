"""Reading the sound of a clip as 16 kHz mono: wav and flac by libsndfile, everything else by FFmpeg."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import soundfile

from erv.data.media.container import Limits, open_container
from erv.data.media.errors import CorruptMedia, MissingMedia
from erv.types import AUDIO_RATE

_SNDFILE_SUFFIXES = (".wav", ".flac")
_BLOCK = 1 << 16  # samples read at a time


@dataclass(frozen=True, slots=True)
class Audio:
    """A decoded sound track, and what the file holds."""

    waveform: np.ndarray
    """float32 `[samples]`, mono, at the rate that was asked for."""
    codec: str
    rate: int
    """Samples per second in the file."""
    channels: int
    """Channels in the file."""


def read_audio(
    path: str, rate: int = AUDIO_RATE, seconds: float | None = None, limits: Limits | None = None
) -> Audio | None:
    """Read a file's sound, as the mean over its channels; None when it has no sound track.

    A clip without sound is not turned into silence here: what to do about it is the user's decision (`media.on_no_audio`).

    Args:
        path: A media file, or a folder of frames, which has no sound.
        rate: Samples per second of the waveform.
        seconds: Read the beginning only.
        limits: The largest file that is read.

    Raises:
        MissingMedia: The file does not exist.
        CorruptMedia: It cannot be decoded, holds NaN or infinite samples, or is over a limit.
    """
    limits = limits or Limits()
    if Path(path).is_dir():
        return None
    if not Path(path).is_file():
        raise MissingMedia(path, "no such file", "check data.root and the row that names it")
    audio = None
    if Path(path).suffix.lower() in _SNDFILE_SUFFIXES:
        audio = _read_with_sndfile(path, rate, seconds, limits)
    if audio is None:
        audio = _read_with_ffmpeg(path, rate, seconds, limits)
    if audio is not None and not np.isfinite(audio.waveform).all():
        raise CorruptMedia(path, "holds sound that is not a number (NaN or infinite samples)")
    return audio


def _read_with_sndfile(path: str, rate: int, seconds: float | None, limits: Limits) -> Audio | None:
    """None when libsndfile cannot read the file, whose suffix may be wrong."""
    limits.check(path, size=Path(path).stat().st_size)
    try:
        with soundfile.SoundFile(path) as file:
            limits.check(path, seconds=file.frames / file.samplerate)
            blocks = (block.mean(1) for block in file.blocks(_BLOCK, dtype="float32", always_2d=True))
            waveform = _resample((_mono_frame(block, file.samplerate) for block in blocks), rate, seconds)
            return Audio(waveform, file.subtype.lower(), file.samplerate, file.channels) if len(waveform) else None
    except soundfile.LibsndfileError:
        return None


def _mono_frame(samples: np.ndarray, rate: int) -> av.AudioFrame:
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples[None]), format="fltp", layout="mono")
    frame.sample_rate = rate
    return frame


def _read_with_ffmpeg(path: str, rate: int, seconds: float | None, limits: Limits) -> Audio | None:
    with open_container(path, limits) as container:
        if not container.streams.audio:
            return None
        context = container.streams.audio[0].codec_context
        waveform = _resample(container.decode(audio=0), rate, seconds)
        return Audio(waveform, context.name, context.sample_rate, context.channels) if len(waveform) else None


def _resample(frames: Iterator[av.AudioFrame], rate: int, seconds: float | None) -> np.ndarray:
    """Resample to `rate`, then average the channels: FFmpeg's downmix to mono would weigh them by layout.

    Stops decoding once `seconds` are complete. Returns float32 `[samples]`.
    """
    resampler = av.AudioResampler(format="fltp", rate=rate)
    max_samples = None if seconds is None else round(seconds * rate)
    pieces: list[np.ndarray] = []
    samples = 0
    for frame in frames:
        for piece in resampler.resample(frame):
            pieces.append(piece.to_ndarray().mean(axis=0))
            samples += piece.samples
        if max_samples is not None and samples >= max_samples:
            break
    else:  # the end of the track: what the resampler still holds
        pieces += [piece.to_ndarray().mean(axis=0) for piece in resampler.resample(None)]
    return np.concatenate(pieces).astype(np.float32)[:max_samples] if pieces else np.zeros(0, np.float32)
