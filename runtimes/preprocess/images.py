"""Decoding: image bytes to RGB pixels, the same ones Pillow's `convert("RGB")` gives."""

from __future__ import annotations

import io
import os
import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from .. import _native
from ..core.errors import ImageError, InputError, UnsupportedImage
from ..core.text import one_line, readable

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"})
PILLOW_FORMATS = ("BMP", "WEBP", "TIFF")
MAX_PIXELS_VARIABLE = "EDGERECALL_MAX_PIXELS"
ORIENTATION = 0x0112
Pixels = NDArray[np.uint8]


def max_pixels() -> int:
    """Images with more pixels are refused: by default 89,478,485, as Pillow warns."""
    text = os.environ.get(MAX_PIXELS_VARIABLE, "89478485")
    if not (text.isascii() and text.isdecimal()) or len(text) > 15 or int(text) < 1:
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


def decode_rgb(data: bytes, exif: str, name: str) -> Pixels:
    """Encoded bytes -> uint8 `(height, width, 3)`, C-contiguous, RGB.

    JPEG and PNG through the C++ core, the rest through Pillow. `exif`: "apply" or "ignore"; a TIFF is always upright.
    Raises ImageError, naming `name`, for anything that is no whole image of at most `max_pixels()`.
    """
    try:
        return _native.decode(data, exif == "apply", max_pixels())
    except UnsupportedImage:
        return decode_other(data, exif, name)
    except (InputError, MemoryError) as error:
        message = "not enough memory to decode it" if isinstance(error, MemoryError) else str(error)
        raise ImageError(f"{name}: {message}") from error


def decode_other(data: bytes, exif: str, name: str) -> Pixels:
    """`decode_rgb` of what the core does not read: BMP, WebP and TIFF."""
    limit = max_pixels()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = Image.open(io.BytesIO(data), formats=PILLOW_FORMATS)
            width, height = image.size
            if width * height > limit:
                raise ImageError(
                    f"{name}: {width} x {height} is {width * height / 1e6:.4g} million pixels, more than the limit"
                    f" of {limit / 1e6:.4g}: shrink it, or raise {MAX_PIXELS_VARIABLE}"
                )
            orientation = image.getexif().get(ORIENTATION, 1) if exif == "apply" else 1
            pixels = np.asarray(image.convert("RGB"))
            if image.format == "TIFF" or orientation not in range(2, 9):  # Pillow turns a TIFF as it reads it
                return pixels
            return _native.upright(pixels, orientation)
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


def load_rgb(path: Path, exif: str = "ignore") -> Pixels:
    """`decode_rgb` of a file."""
    return decode_rgb(read_bytes(path), exif, str(path))


def other_files(folder: Path) -> list[Path]:
    """What is below a folder that `find_images` passes over: files of other suffixes, links to nothing, pipes; hidden
    ones are not counted.
    """
    found = (path for path in folder.rglob("*") if not path.is_dir() and not path.name.startswith("."))
    return sorted(path for path in found if path.suffix.lower() not in SUFFIXES or not path.is_file())


def passed_over(folder: Path) -> str | None:
    """One line on the files below a folder that are no images, counted by kind; None where there are none."""
    others = other_files(folder)
    if not others:
        return None
    kinds = sorted({one.suffix.lower() or one.name if one.is_file() else f"{one.name} (no file)" for one in others})
    shown = readable(", ".join(kinds[:8] + ["..."] * (len(kinds) > 8)))
    return f"{len(others)} files passed over that are no {'/'.join(sorted(SUFFIXES))}: {shown}"


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
