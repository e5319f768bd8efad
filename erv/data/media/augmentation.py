"""Augmentation of clips: one change for all frames of a clip, drawn anew in every epoch.

Off by default: the paper uses none. The draw depends on (seed, epoch, clip) alone, so it is the same at any number of
workers and after any interruption.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields

import numpy as np
from PIL import Image, ImageEnhance

from erv.data.media.decode import FramesAndWaveform, Transform
from erv.types import AUDIO_RATE

_MAXIMA = {"crop": 0.45, "gain_db": 60.0, "shift_s": 10.0}  # of the others, 1
_ENHANCERS = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)


@dataclass(frozen=True)
class Augmentation:
    """How far clips may be changed; 0 leaves a property as it is."""

    flip: float = 0.0
    """Probability of a left-right mirror image."""
    colour: float = 0.0
    """Brightness, contrast and saturation are scaled by up to 1 ± this."""
    crop: float = 0.0
    """Up to this share is cut off at each edge."""
    noise: float = 0.0
    """Standard deviation of pixel noise, as a share of 255."""
    gain_db: float = 0.0
    """Loudness is changed by up to ± this, in dB."""
    sound_noise: float = 0.0
    """Standard deviation of noise in the sound, as a share of its root mean square."""
    shift_s: float = 0.0
    """The sound begins up to ± this many seconds later; what moves out at one end is lost, the other is filled with zeros."""

    def __post_init__(self) -> None:
        """Refuse values that would leave nothing of a clip."""
        for field in fields(self):
            value, maximum = getattr(self, field.name), _MAXIMA.get(field.name, 1.0)
            if not 0 <= value <= maximum:
                raise ValueError(f"augment.{field.name} is between 0 and {maximum:g}, got {value}")

    def transform_for(self, seed: int, epoch: int, clip: str) -> Transform:
        """The change of the clip with id `clip` in an epoch."""
        digest = hashlib.sha256(f"{seed}/{epoch}/{clip}".encode()).digest()

        def transform(frames: np.ndarray | None, waveform: np.ndarray | None) -> FramesAndWaveform:
            # a generator each, so that a setting of one modality does not change the draws of the other
            video_rng, audio_rng = (np.random.default_rng([*digest, stream]) for stream in (0, 1))
            return (
                None if frames is None else self.augment_frames(video_rng, frames),
                None if waveform is None else self.augment_waveform(audio_rng, waveform),
            )

        return transform

    def augment_frames(self, rng: np.random.Generator, frames: np.ndarray) -> np.ndarray:
        """Crop, mirror, recolour and add noise: uint8 `[T, H, W, 3]` -> uint8 `[T, H', W', 3]`."""
        # Everything is drawn whether it is used or not: a setting does not change the draws of the others.
        height, width = frames.shape[1:3]
        left, right, top, bottom = rng.uniform(0, self.crop, 4)
        rows = slice(int(top * height), height - int(bottom * height))
        columns = slice(int(left * width), width - int(right * width))
        mirrored = rng.random() < self.flip
        factors = 1 + rng.uniform(-self.colour, self.colour, 3)
        changed = []
        for frame in frames[:, rows, columns]:
            image = Image.fromarray(np.ascontiguousarray(frame[:, ::-1] if mirrored else frame))
            if self.colour:
                for enhancer, factor in zip(_ENHANCERS, factors, strict=True):
                    image = enhancer(image).enhance(float(factor))
            changed.append(np.asarray(image))
        result = np.stack(changed)
        if self.noise:
            noisy = result + rng.normal(0, 255 * self.noise, result.shape)
            result = noisy.round().clip(0, 255).astype(np.uint8)
        return result

    def augment_waveform(self, rng: np.random.Generator, waveform: np.ndarray) -> np.ndarray:
        """Change the loudness, shift and add noise: float32 `[S]` at AUDIO_RATE -> float32 `[S]`."""
        gain = 10 ** (rng.uniform(-self.gain_db, self.gain_db) / 20)
        shift = round(rng.uniform(-self.shift_s, self.shift_s) * AUDIO_RATE)
        shifted = np.zeros_like(waveform)
        length = max(len(waveform) - abs(shift), 0)
        shifted[max(shift, 0) :][:length] = waveform[max(-shift, 0) :][:length]
        sigma = float(np.sqrt(np.mean(np.square(waveform)))) * self.sound_noise
        changed = shifted * gain + (rng.normal(0, sigma, len(waveform)) if sigma else 0.0)
        return changed.astype(np.float32)
