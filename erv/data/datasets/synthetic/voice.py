"""A schematic voice: a harmonic source with syllables, whose six settings depend on the emotion."""

from __future__ import annotations

import numpy as np

RATE, SECONDS = 16000, 1.5
# Emotion -> pitch level (octaves), pitch range (octaves), energy (log), syllables a second, harshness, tremor.
SETTINGS = {
    "neutral": (0.0, 0.10, 0.0, 3.5, 0.10, 0.00),
    "happy": (0.40, 0.35, 0.35, 4.8, 0.10, 0.00),
    "sad": (-0.20, 0.06, -0.60, 2.3, 0.05, 0.10),
    "angry": (0.25, 0.20, 0.80, 5.0, 0.80, 0.00),
    "surprise": (0.65, 0.55, 0.40, 3.8, 0.15, 0.00),
    "disgust": (-0.30, 0.15, 0.10, 2.6, 0.60, 0.05),
    "fear": (0.55, 0.18, -0.20, 5.4, 0.15, 0.60),
}


def render(rng: np.random.Generator, strength: dict[str, float]) -> np.ndarray:
    """Synthesise one utterance: float32 `[RATE * SECONDS]` in [-1, 1]. `strength` is emotion -> weight."""
    rest = np.asarray(SETTINGS["neutral"])
    target = rest + sum(w * (np.asarray(SETTINGS[e]) - rest) for e, w in strength.items())
    level, span, energy, rate, harsh, tremor = target + rng.normal(0, 1, 6) * (0.14, 0.08, 0.25, 0.6, 0.14, 0.11)
    t = np.arange(int(RATE * SECONDS)) / RATE
    speaker = np.log2(rng.uniform(110, 230))
    contour = span * np.sin(2 * np.pi * rng.uniform(0.5, 1.0) * t + rng.uniform(0, 2 * np.pi))
    shake = max(tremor, 0) * 0.08 * np.sin(2 * np.pi * rng.uniform(6, 9) * t)
    pitch = 2.0 ** (speaker + level + contour + shake)
    phase = 2 * np.pi * np.cumsum(pitch) / RATE
    tilt = 1.4 - 0.8 * np.clip(harsh, 0, 1.2)  # a harsh voice has stronger upper harmonics
    source = _harmonics(phase, rng.uniform(0, 2 * np.pi, 10), tilt)
    breath = rng.standard_normal(t.size, np.float32) * (0.15 + 0.5 * np.clip(harsh, 0, 1.2))
    syllables = np.clip(np.sin(np.pi * max(rate, 1.0) * t + rng.uniform(0, 3.14)) ** 2 - 0.1, 0, None)
    quaver = 1 + np.clip(tremor, 0, 1) * 0.5 * np.sin(2 * np.pi * rng.uniform(6, 9) * t)
    sound = (source + breath) * syllables * quaver * np.exp(energy) * 0.05 * rng.uniform(0.8, 1.25)
    return np.clip(sound + rng.standard_normal(t.size, np.float32) * 0.004, -1, 1).astype(np.float32)


def _harmonics(phase: np.ndarray, offsets: np.ndarray, tilt: float) -> np.ndarray:
    """Sum over k = 1.. of sin(k * phase + offset_k) / k^tilt; ten harmonics of at most 600 Hz stay below 8 kHz."""
    wrapped = (phase % (2 * np.pi)).astype(np.float32)  # single precision is faster, and exact enough once wrapped
    return sum(np.sin(k * wrapped + np.float32(o)) / np.float32(k**tilt) for k, o in enumerate(offsets, start=1))
