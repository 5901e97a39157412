"""Decoding: image bytes to RGB pixels, the same ones Pillow's `convert("RGB")` gives."""

from __future__ import annotations

import io
import os
import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from . import _native
from .errors import ImageError, InputError
from .predictor import one_line

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"})
FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF")
MAX_PIXELS_VARIABLE = "EDGERECALL_MAX_PIXELS"
ORIENTATION = 0x0112


def max_pixels() -> int:
    """Images with more pixels are refused: by default 89,478,485, as Pillow warns; at most twice that."""
    text = os.environ.get(MAX_PIXELS_VARIABLE, "89478485")
    if not text.isdigit() or int(text) < 1:
        raise InputError(f"{MAX_PIXELS_VARIABLE}: expected a whole number of pixels, got '{text}'")
    return int(text)


def read_bytes(path: Path) -> bytes:
    """The file's bytes; ImageError when it cannot be read or is empty."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ImageError(f"{path}: cannot be read: {error.strerror}") from error
    if not data:
        raise ImageError(f"{path}: expected an image, got an empty file")
    return data


def decode_rgb(data: bytes, exif: str, name: str) -> NDArray[np.uint8]:
    """Encoded bytes -> uint8 `(height, width, 3)`, C-contiguous, RGB.

    JPEG through the C++ core, the rest (and CMYK JPEG) through Pillow. `exif`: "apply" or "ignore".
    Raises ImageError, naming `name`, for anything that is no whole image of at most `max_pixels()`.
    """
    limit = max_pixels()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            header = Image.open(io.BytesIO(data), formats=FORMATS)
            width, height = header.size
            if width * height > limit:
                raise ImageError(
                    f"{name}: {width} x {height} is {width * height / 1e6:.0f} million pixels, more than the limit"
                    f" of {limit / 1e6:.0f}: shrink it, or raise {MAX_PIXELS_VARIABLE}"
                )
            turned = exif == "apply" and header.getexif().get(ORIENTATION, 1) not in (0, 1)
            if header.format in ("JPEG", "MPO") and header.mode in ("RGB", "L") and not turned:
                return _native.decode_jpeg(data)
            pixels = header.convert("RGB")
            return np.array(ImageOps.exif_transpose(pixels) if turned else pixels)
    except ImageError:
        raise
    except UnidentifiedImageError as error:
        raise ImageError(f"{name}: expected a JPEG, PNG, BMP, WebP or TIFF image, got something else") from error
    except MemoryError as error:
        raise ImageError(f"{name}: not enough memory to decode it") from error
    except Image.DecompressionBombError as error:  # Pillow's own limit, which ours cannot lift
        raise ImageError(f"{name}: more than 178 million pixels: shrink it") from error
    except Exception as error:  # on damaged files Pillow's plugins raise whatever their parsing hits upon
        raise ImageError(f"{name}: damaged image: {one_line(error)}") from error


def load_rgb(path: Path, exif: str = "ignore") -> NDArray[np.uint8]:
    """`decode_rgb` of a file."""
    return decode_rgb(read_bytes(path), exif, str(path))


def other_files(folder: Path) -> list[Path]:
    """Files below a folder that `find_images` passes over by their suffix; hidden ones are not counted."""
    found = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    return sorted(path for path in found if path.suffix.lower() not in SUFFIXES)


def find_images(path: Path) -> list[Path]:
    """An image, or all images below a folder in sorted order. InputError when there is none."""
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise InputError(f"{path}: expected an image or a folder of images, found nothing there")
    found = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
    if not found:
        raise InputError(f"{path}: no images ({', '.join(sorted(SUFFIXES))}) in this folder")
    return found
