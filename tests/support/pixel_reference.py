"""Preprocessing the slow way, for tests: Pillow, OpenCV and numpy, one step after the other."""

from __future__ import annotations

import os
from typing import Any

os.environ["OPENCV_IPP"] = "disabled"  # read when cv2 is first used: its own code, not Intel's, is the rule held

import cv2
import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]
CV2_FILTERS = {
    "nearest": cv2.INTER_NEAREST,
    "bilinear": cv2.INTER_LINEAR,
    "bicubic": cv2.INTER_CUBIC,
    "area": cv2.INTER_AREA,
    "lanczos": cv2.INTER_LANCZOS4,
}
PIL_BACKEND = "pil" if int(PIL.__version__.split(".")[0]) >= 13 else "pil12"


def resize(image: Pixels, height: int, width: int, backend: str, name: str) -> Pixels:
    """uint8 `(h, w, 3)` to `(height, width, 3)`; backend: the installed Pillow's or cv2."""
    if backend == "cv2":
        resized: Any = cv2.resize(image, (width, height), interpolation=CV2_FILTERS[name])
        return np.asarray(resized, dtype=np.uint8)
    rule = getattr(Image.Resampling, name.upper())
    if backend == PIL_BACKEND or height >= image.shape[0]:
        return np.asarray(Image.fromarray(image).resize((width, height), rule))
    # The other Pillow's order of passes, made from two resizes along one axis each.
    across_first = backend == "pil12" or not down_first(image, height, width)
    sizes = [(width, image.shape[0]), (width, height)] if across_first else [(image.shape[1], height), (width, height)]
    picture = Image.fromarray(image)
    if name == "nearest":
        return np.asarray(picture.resize((width, height), rule))
    for size in sizes:
        picture = picture.resize(size, rule)
    return np.asarray(picture)


def down_first(image: Pixels, height: int, width: int) -> bool:
    """Pillow 13's rule for the pass that comes first."""
    shrink = image.shape[0] - height
    return shrink > 0 and shrink > 2 * (image.shape[1] - width)


def normalize(image: Pixels, scale: float, mean: Any, std: Any, order: str) -> NDArray[np.float32]:
    """`(value * scale - mean) / std` in float32, planar, in the order of `order`."""
    pixels = (image if order == "rgb" else image[:, :, ::-1]).astype(np.float32)
    tensor = (pixels * np.float32(scale) - np.asarray(mean, np.float32)) / np.asarray(std, np.float32)
    return np.ascontiguousarray(tensor.transpose(2, 0, 1))
