"""A schematic face: six parameters per emotion that ramp up over the clip, and everything that varies between people."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

SIZE, FPS, FRAMES = 64, 8, 12
_SCALE = 2  # drawn larger and reduced, for smooth edges
# Emotion -> brow angle, brow height, eye openness, mouth curvature, mouth opening, nose wrinkle; 0 is the face at rest.
PARAMETERS = {
    "neutral": (0.0, 0.0, 0.0, 0.0, 0.0, 0.0),
    "happy": (0.0, 0.15, -0.3, 1.0, 0.35, 0.0),
    "sad": (0.8, 0.2, -0.5, -0.8, 0.0, 0.0),
    "angry": (-1.0, -0.7, 0.1, -0.45, 0.1, 0.35),
    "surprise": (0.1, 1.0, 1.0, 0.0, 1.0, 0.0),
    "disgust": (-0.5, -0.5, -0.5, -0.5, 0.15, 1.0),
    "fear": (0.8, 0.8, 0.8, -0.35, 0.5, 0.0),
}
# Points of the unit circle, and of a mouth's arc: (x, height as a share of the arc's)
_CIRCLE = [(math.cos(a * math.pi / 8), math.sin(a * math.pi / 8)) for a in range(16)]
_ARC = [(2.2 * x, 1 - (x / 5) ** 2) for x in range(-5, 6)]
_RGB = {
    "red": (190, 50, 45),
    "blue": (50, 80, 180),
    "green": (50, 140, 70),
    "grey": (130, 130, 130),
    "yellow": (215, 190, 60),
    "brown": (120, 80, 50),
}


def render(rng: np.random.Generator, strength: dict[str, float], shirt: str, wall: str) -> np.ndarray:
    """Draw a clip of a face.

    Args:
        rng: Draws the person, the light, the camera's drift and the noise.
        strength: Emotion -> weight.
        shirt: Colour, a key of _RGB.
        wall: Colour of the background.

    Returns:
        uint8 `[FRAMES, SIZE, SIZE, 3]`.
    """
    target = sum(w * np.asarray(PARAMETERS[e]) for e, w in strength.items()) + rng.normal(0, 0.2, 6)
    person: dict[str, Any] = {
        "skin": np.array([225, 185, 155]) * rng.uniform(0.45, 1.05),
        "centre": rng.uniform(-2, 2, 2) + SIZE / 2,
        "scale": float(rng.uniform(0.92, 1.08)),
        "tilt": rng.uniform(-0.08, 0.08),
        "rest": rng.normal(0, 0.12, 6),
        "shirt": _RGB[shirt],
        "wall": np.array(_RGB[wall]) * 0.6 + 70,
    }
    light, drift = rng.uniform(0.75, 1.2), rng.uniform(-0.25, 0.25, 2)
    onset = rng.uniform(0.1, 0.45)
    frames = []
    for t in range(FRAMES):
        ramp = float(np.clip((t / (FRAMES - 1) - onset * 0.5) / 0.4, 0, 1))
        picture = _draw(person, person["rest"] + ramp * target + rng.normal(0, 0.05, 6), drift * t)
        noisy = picture.astype(np.float32) * light + rng.standard_normal(picture.shape, np.float32) * 7
        frames.append(np.clip(noisy, 0, 255).astype(np.uint8))
    return np.stack(frames)


def _draw(person: dict[str, Any], parameters: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Draw one frame, uint8 `[SIZE, SIZE, 3]`: wall, shirt, head, brows, eyes, nose, mouth."""
    angle, height, open_, curve, gap, wrinkle = (float(p) for p in parameters)  # scalars of numpy are far slower
    image = Image.new("RGB", (SIZE * _SCALE, SIZE * _SCALE), tuple(int(v) for v in person["wall"]))
    draw = ImageDraw.Draw(image)
    cos, sin = math.cos(person["tilt"]), math.sin(person["tilt"])
    cx, cy = (float(v) for v in person["centre"] + shift)

    def at(x: float, y: float) -> tuple[float, float]:
        x, y = x * person["scale"], y * person["scale"]
        return (cx + cos * x - sin * y) * _SCALE, (cy + sin * x + cos * y) * _SCALE

    def line(points: list[tuple[float, float]], width: float, colour: tuple[int, ...]) -> None:
        draw.line([at(*p) for p in points], fill=colour, width=max(1, round(width * _SCALE)), joint="curve")

    def ellipse(x: float, y: float, rx: float, ry: float, colour: tuple[int, ...]) -> None:
        draw.polygon([at(x + rx * c, y + ry * s) for c, s in _CIRCLE], fill=colour)

    dark, skin = (40, 28, 25), tuple(int(v) for v in np.clip(person["skin"], 0, 255))
    ellipse(0, 44, 30, 18, person["shirt"])
    ellipse(0, 0, 24, 29, skin)
    for side in (-1, 1):
        brow = -14 - 4 * height
        line([(side * 4, brow - 4.5 * angle), (side * 16, brow + 2.5 * angle)], 2.6, dark)
        ellipse(side * 10, -5, 5, max(0.6, 3.0 + 2.2 * open_), (245, 245, 245))
        ellipse(side * 10, -5, 2.2, min(2.2, max(0.6, 3.0 + 2.2 * open_)), dark)
        if wrinkle > 0.25:
            line([(side * 2, 1), (side * 7, 3 - 3 * wrinkle)], 1.6, dark)
    line([(0, -1), (-2, 7), (2, 7)], 1.2, tuple(int(v * 0.7) for v in skin))
    middle = 16 - curve * 2
    upper = [(x, middle + curve * 6.0 * bow) for x, bow in _ARC]
    lower = [(x, middle + (curve * 6.0 + max(0.0, gap) * 8) * bow) for x, bow in _ARC]
    draw.polygon([at(*p) for p in upper + lower[::-1]], fill=(90, 20, 25))
    line(upper, 2.2, (120, 40, 45))
    line(lower, 1.8, (120, 40, 45))
    return np.asarray(image.reduce(_SCALE))
