"""Writes tests/golden: images and what Pillow and OpenCV make of them, for the C++ tests on machines without Python.

Usage: python tests/support/make_golden.py. Run it only when a rule itself changes.
"""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from pixel_reference import normalize, resize

from edgerecall.runtimes.preprocess.ops import FILTERS

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
SIZES = [
    (31, 47, 31, 47),
    (31, 47, 11, 90),
    (90, 41, 20, 40),
    (64, 48, 32, 24),
    (60, 90, 20, 30),
    (7, 5, 40, 61),
    (1, 1, 9, 4),
    (200, 3, 5, 3),
    (33, 300, 64, 64),
]


def made_up(height: int, width: int) -> NDArray[np.uint8]:
    """The picture that the C++ tests make too: bytes of a linear congruential generator."""
    state, pixels = 12345, np.empty(height * width * 3, dtype=np.uint8)
    for index in range(len(pixels)):
        state = (state * 1103515245 + 12345) % 2**31
        pixels[index] = state >> 16 & 255
    return pixels.reshape(height, width, 3)


def photo() -> Image.Image:
    """Smooth colours with an edge, 19 x 23."""
    y, x = np.mgrid[0:23, 0:19]
    base = np.stack([x * 13, y * 11, (x + y) * 6], axis=2).astype(np.uint8)
    base[12:, 9:] = (250, 20, 90)
    return Image.fromarray(base)


def write_images() -> None:
    """Encoded images and the RGB bytes of each, upright."""
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = photo()
    saved = {
        "rgb420.jpg": (picture, {"subsampling": 2}),
        "rgb422.jpg": (picture, {"subsampling": 1, "restart_marker_blocks": 1}),
        "rgb444.jpg": (picture, {"subsampling": 0, "progressive": True}),
        "gray.jpg": (picture.convert("L"), {}),
        "cmyk.jpg": (picture.convert("CMYK"), {}),
        "turned.jpg": (picture, {"exif": exif}),
        "rgb.png": (picture, {}),
        "rgba.png": (picture.convert("RGBA"), {"exif": exif}),
        "palette.png": (picture.quantize(11), {}),
        "gray_alpha.png": (picture.convert("LA"), {}),
        "bits.png": (picture.convert("1"), {}),
        "gray16.png": (Image.fromarray(np.arange(23 * 19, dtype=np.uint16).reshape(23, 19)), {}),
    }
    for name, (image, options) in saved.items():
        image.save(GOLDEN / name, **options)
        upright = ImageOps.exif_transpose(Image.open(GOLDEN / name)).convert("RGB")
        (GOLDEN / f"{name}.rgb").write_bytes(upright.tobytes())


def write_pixels() -> None:
    """`backend filter height width new_height new_width`, and checksums of the pixels and the float32 tensor."""
    lines = []
    for backend in ("pil", "pil12", "cv2"):
        for name in FILTERS[backend]:
            for height, width, new_height, new_width in SIZES:
                pixels = resize(made_up(height, width), new_height, new_width, backend, name)
                tensor = normalize(pixels, 1 / 255, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "bgr")
                sums = [zlib.crc32(np.ascontiguousarray(part).tobytes()) for part in (pixels, tensor)]
                lines.append(f"{backend} {name} {height} {width} {new_height} {new_width} {sums[0]} {sums[1]}")
    (GOLDEN / "pixels.txt").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    write_images()
    write_pixels()
