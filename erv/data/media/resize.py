"""Pictures brought to the side length that a vision tower takes."""

from __future__ import annotations

import numpy as np
from PIL import Image

from erv.types import Aspect

PAD_COLOUR = (127, 127, 127)


def fit(frames: np.ndarray, side: int, aspect: Aspect) -> np.ndarray:
    """uint8 `[T, H, W, 3]` -> `[T, side, side, 3]`, resized bicubically as SigLIP does (spec: policy.md section 5).

    `aspect`: "pad" centres a picture on a grey square first, "squash" stretches it.
    """
    height, width = frames.shape[1:3]
    longer = max(height, width)
    pictures = []
    for frame in frames:
        picture = Image.fromarray(frame)
        if aspect == "pad" and height != width:
            canvas = Image.new("RGB", (longer, longer), PAD_COLOUR)
            canvas.paste(picture, ((longer - width) // 2, (longer - height) // 2))
            picture = canvas
        pictures.append(np.asarray(picture.resize((side, side), Image.Resampling.BICUBIC)))
    return np.stack(pictures)
