"""Resizing frames to the side length that a vision tower takes."""

from __future__ import annotations

import numpy as np
from PIL import Image

from erv.types import Aspect

PAD_COLOUR = (127, 127, 127)


def fit(frames: np.ndarray, side: int, aspect: Aspect) -> np.ndarray:
    """Resize uint8 `[T, H, W, 3]` to `[T, side, side, 3]`, bicubically as SigLIP does (spec: policy.md section 5).

    `aspect` "pad" centres a frame on a grey square first, "squash" stretches it.
    """
    height, width = frames.shape[1:3]
    longer = max(height, width)
    resized = []
    for frame in frames:
        image = Image.fromarray(frame)
        if aspect == "pad" and height != width:
            square = Image.new("RGB", (longer, longer), PAD_COLOUR)
            square.paste(image, ((longer - width) // 2, (longer - height) // 2))
            image = square
        resized.append(np.asarray(image.resize((side, side), Image.Resampling.BICUBIC)))
    return np.stack(resized)
