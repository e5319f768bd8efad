"""Sound of a clip: 16 kHz mono through PyAV's resampler."""

from __future__ import annotations

import av
import numpy as np

from erv.media.frames import opened


def read_audio(path: str, rate: int = 16000) -> np.ndarray | None:
    """The sound of the clip as float32 mono `[S]` at `rate` Hz (mean over channels); None when there is no sound track.

    Raises MissingMedia or CorruptMedia. A clip without sound is never turned into silence here: that is a decision.
    """
    with opened(path) as container:
        if not container.streams.audio:
            return None
        # The mean over channels is taken after resampling: ffmpeg's own downmix weighs channels by layout.
        resampler = av.AudioResampler(format="fltp", rate=rate)
        pieces = [piece for frame in container.decode(audio=0) for piece in resampler.resample(frame)]
        pieces += resampler.resample(None)
        if not pieces:
            return None
        return np.concatenate([piece.to_ndarray() for piece in pieces], axis=1).mean(axis=0).astype(np.float32)
