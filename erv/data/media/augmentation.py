"""Augmentation of clips: the same change for all pictures of a clip, drawn anew every time the clip is seen.

Off by default: the paper uses none. What a clip gets depends on (seed, turn, clip) alone, so it is the same at any number of
workers and after any interruption.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields

import numpy as np
from PIL import Image, ImageEnhance

from erv.data.media.decode import Change, Pair

_SAMPLES_PER_SECOND = 16000


@dataclass(frozen=True)
class Augment:
    """How far clips may be changed; 0 leaves a property as it is.

    `flip`: probability of a left-right mirror image. `colour`: brightness, contrast and saturation are scaled by up to 1 ± this.
    `crop`: up to this share is cut off at each edge. `noise`: standard deviation of pixel noise, of 255. `gain_db`: loudness, up
    to ± this. `sound_noise`: standard deviation of noise in the sound, of its own root mean square. `shift_s`: the sound begins
    up to ± this many seconds later; what moves out at one end is lost, the other is filled with zeros.
    """

    flip: float = 0.0
    colour: float = 0.0
    crop: float = 0.0
    noise: float = 0.0
    gain_db: float = 0.0
    sound_noise: float = 0.0
    shift_s: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what would leave nothing of a clip."""
        for field in fields(self):
            value, most = getattr(self, field.name), {"gain_db": 60.0, "shift_s": 10.0}.get(field.name, 1.0)
            most = 0.45 if field.name == "crop" else most
            if not 0 <= value <= most:
                raise ValueError(f"augment.{field.name} is between 0 and {most:g}, got {value}")

    def of(self, seed: int, turn: int, clip: str) -> Change:
        """The change of `clip` when it is seen for the `turn`-th time."""
        digest = hashlib.sha256(f"{seed}/{turn}/{clip}".encode()).digest()

        def change(pictures: np.ndarray | None, wave: np.ndarray | None) -> Pair:
            looks, sounds = (np.random.default_rng([*digest, part]) for part in (0, 1))  # neither moves the other
            return (
                None if pictures is None else self.pictures(looks, pictures),
                None if wave is None else self.sound(sounds, wave),
            )

        return change

    def pictures(self, rng: np.random.Generator, pictures: np.ndarray) -> np.ndarray:
        """uint8 `[T, H, W, 3]` -> the same, cropped, mirrored, coloured and noised."""
        height, width = pictures.shape[1:3]
        left, right, top, bottom = rng.uniform(0, self.crop, 4)
        rows = slice(int(top * height), height - int(bottom * height))
        columns = slice(int(left * width), width - int(right * width))
        mirrored = rng.random() < self.flip
        factors = 1 + rng.uniform(-self.colour, self.colour, 3)
        changed = []
        for picture in pictures[:, rows, columns]:
            image = Image.fromarray(np.ascontiguousarray(picture[:, ::-1] if mirrored else picture))
            for kind, factor in zip(
                (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color), factors, strict=True
            ):
                image = kind(image).enhance(float(factor)) if self.colour else image
            changed.append(np.asarray(image))
        result = np.stack(changed)
        if self.noise:
            noisy = result + rng.normal(0, 255 * self.noise, result.shape)
            result = noisy.round().clip(0, 255).astype(np.uint8)
        return result

    def sound(self, rng: np.random.Generator, wave: np.ndarray) -> np.ndarray:
        """float32 `[S]` at 16 kHz -> the same length, louder or softer, noised and shifted."""
        gain = 10 ** (rng.uniform(-self.gain_db, self.gain_db) / 20)
        shift = round(rng.uniform(-self.shift_s, self.shift_s) * _SAMPLES_PER_SECOND)
        moved = np.zeros_like(wave)
        kept = max(len(wave) - abs(shift), 0)
        moved[max(shift, 0) :][:kept] = wave[max(-shift, 0) :][:kept]
        level = float(np.sqrt(np.mean(np.square(wave)))) * self.sound_noise
        changed = moved * gain + (rng.normal(0, level, len(wave)) if level else 0.0)
        return changed.astype(np.float32)
