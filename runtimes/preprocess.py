"""Executes a spec's preprocessing: encoded image to the float32 tensor that the model was trained on."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from . import _native
from .errors import ImageError
from .images import decode_rgb, max_pixels, read_bytes
from .spec import CenterCrop, Normalize, Preprocess, Resampling, ResizeExact, ResizeShort

PIL_FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "box": Image.Resampling.BOX,
    "hamming": Image.Resampling.HAMMING,
    "lanczos": Image.Resampling.LANCZOS,
}
CV2_FILTERS = {
    "nearest": "INTER_NEAREST",
    "bilinear": "INTER_LINEAR",
    "bicubic": "INTER_CUBIC",
    "area": "INTER_AREA",
    "lanczos": "INTER_LANCZOS4",
}
Pixels = NDArray[np.uint8]


def resample(image: Pixels, height: int, width: int, rule: Resampling) -> Pixels:
    """uint8 `(h, w, 3)` to `(height, width, 3)` with the named backend's arithmetic."""
    if image.shape[:2] == (height, width):
        return image
    if rule.backend == "pil":
        return np.asarray(Image.fromarray(image).resize((width, height), PIL_FILTERS[rule.filter]))
    import cv2

    resized: Any = cv2.resize(image, (width, height), interpolation=getattr(cv2, CV2_FILTERS[rule.filter]))
    return np.asarray(resized, dtype=np.uint8)


def short_side_size(height: int, width: int, rule: ResizeShort) -> tuple[int, int]:
    """`(height, width)` after resizing the shorter side, by the reference's two rules.

    `truncate`: `int(size * longer / shorter)` (Paddle's `Resize`); `round`: Python's `round` of both sides times
    `size / shorter` (PaddleClas's `ResizeImage(resize_short)`).
    """
    if rule.rounding == "round":
        ratio = float(rule.size) / min(height, width)
        return round(height * ratio), round(width * ratio)
    if width < height:
        return int(rule.size * height / width), rule.size
    return rule.size, int(rule.size * width / height)


def crop_start(margin: int, rule: str) -> int:
    """Where a centre crop begins: Paddle rounds half the margin (to even), PaddleClas's `CropImage` cuts it."""
    return round(margin / 2.0) if rule == "round" else margin // 2


def apply_geometry(image: Pixels, op: ResizeShort | ResizeExact | CenterCrop) -> Pixels:
    """One resize or crop."""
    height, width = image.shape[:2]
    if isinstance(op, ResizeExact):
        return resample(image, op.height, op.width, op)
    if isinstance(op, ResizeShort):
        new_height, new_width = short_side_size(height, width, op)
        if new_height * new_width > max_pixels():
            raise ImageError(f"{width} x {height} would grow to {new_width} x {new_height}: too narrow an image")
        return resample(image, new_height, new_width, op)
    if height < op.height or width < op.width:
        raise ImageError(f"{width} x {height} is smaller than the crop of {op.width} x {op.height}")
    top, left = crop_start(height - op.height, op.margin), crop_start(width - op.width, op.margin)
    return image[top : top + op.height, left : left + op.width]


@lru_cache(maxsize=64)
def channel_tables(rule: Normalize) -> NDArray[np.float32]:
    """float32 `(3, 256)`: `(v * scale - mean) / std` for every sample value, each step rounded to float32."""
    values = np.arange(256, dtype=np.float32)
    mean, std = (np.asarray(x, dtype=np.float32)[:, None] for x in (rule.mean, rule.std))
    tables = (values[None, :] * np.float32(rule.scale) - mean) / std
    if rule.order == "bgr":  # mean and std are listed in the order of the model's planes
        tables = tables[::-1]
    return np.ascontiguousarray(tables, dtype=np.float32)


def pixels_to_tensor(image: Pixels, rule: Normalize, out: NDArray[np.float32]) -> None:
    """RGB uint8 `(H, W, 3)` -> float32 `(3, H, W)` written into `out`."""
    _native.pack_planar(image, channel_tables(rule), rule.order == "bgr", out)


def preprocess_bytes(
    data: bytes, preprocess: Preprocess, name: str, out: NDArray[np.float32] | None = None
) -> NDArray[np.float32]:
    """Encoded image -> float32 `(3, H, W)`, into `out` when given. Raises ImageError naming `name`."""
    image = decode_rgb(data, preprocess.decode.exif, name)
    try:
        for op in preprocess.geometry:
            image = apply_geometry(image, op)
    except ImageError as error:
        raise ImageError(f"{name}: {error}") from error
    if out is None:
        out = np.empty(preprocess.output_shape, dtype=np.float32)
    pixels_to_tensor(image, preprocess.normalize, out)
    return out


def preprocess_file(path: Path, preprocess: Preprocess, out: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
    """`preprocess_bytes` of a file."""
    return preprocess_bytes(read_bytes(path), preprocess, str(path), out)
