"""Executes a spec's preprocessing in the C++ core: encoded images to the tensors that the model was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .. import _native
from ..core.errors import ImageError, InputError
from .images import Pixels, decode_other, max_pixels, read_bytes
from .ops import CenterCrop, Preprocess, ResizeExact, ResizeShort

Tensors = NDArray[np.float32] | NDArray[np.float16]
Source = Path | bytes | bytearray | memoryview | Pixels  # a file, an encoded image, or RGB uint8 `(height, width, 3)`


@lru_cache(maxsize=64)
def plan(preprocess: Preprocess) -> _native.Preprocess:
    """The preprocessing as the core runs it."""
    return _native.Preprocess(preprocess.model_dump_json())


@lru_cache(maxsize=256)
def geometry_plan(op: ResizeShort | ResizeExact | CenterCrop) -> _native.Geometry:
    """One resize or crop as the core runs it."""
    return _native.Geometry(f"[{op.model_dump_json()}]")


def apply_geometry(image: Pixels, op: ResizeShort | ResizeExact | CenterCrop) -> Pixels:
    """One resize or crop of uint8 `(h, w, 3)`; ImageError when it cannot be done to this size."""
    try:
        return geometry_plan(op).apply(image, max_pixels())
    except InputError as error:
        raise ImageError(str(error)) from error


def preprocess_pixels(image: Pixels, preprocess: Preprocess, out: Tensors) -> None:
    """RGB uint8 `(h, w, 3)` -> `(3, H, W)`, float32 or float16, written into `out`."""
    try:
        plan(preprocess).run(image, out, max_pixels())
    except InputError as error:
        raise ImageError(str(error)) from error


def preprocess_batch(
    sources: Sequence[Source],
    preprocess: Preprocess,
    out: Tensors,
    threads: int = 1,
    names: Sequence[str] | None = None,
) -> list[ImageError | None]:
    """Images into the slots of `out`: `(n, 3, H, W)`, C-contiguous, float32 or float16.

    sources: paths, encoded images as bytes (or bytearray, memoryview), or RGB pixels uint8 `(height, width, 3)`, which
    have no orientation to apply. Files and bytes run on `threads` threads without the interpreter's lock, pixels after
    one another without it. Returns for
    each image None, or why its slot is void; InputError for what is no image source at all. names: what messages call
    them; paths call themselves when left out. Thread-safe.
    """

    def name(index: int) -> str:
        return names[index] if names else str(sources[index]) if isinstance(sources[index], Path) else f"image {index}"

    outcomes: list[ImageError | None] = [None] * len(sources)
    sources = [bytes(source) if isinstance(source, bytearray | memoryview) else source for source in sources]
    pixels = {index for index, source in enumerate(sources) if not isinstance(source, Path | bytes)}
    for index in pixels:
        try:
            preprocess_pixels(_pixels(sources[index], name(index)), preprocess, out[index])
        except ImageError as error:
            outcomes[index] = ImageError(f"{name(index)}: {error}")
    encoded = [index for index in range(len(sources)) if index not in pixels] if pixels else range(len(sources))
    if pixels:  # the core fills a block: theirs is copied into the slots
        block = np.empty((len(encoded), *out.shape[1:]), dtype=out.dtype)
    else:
        block = out
    given: list[str | bytes] = [s if isinstance(s, bytes) else str(s) for s in (sources[i] for i in encoded)]
    for place, outcome in enumerate(plan(preprocess).run_batch(given, block, threads, max_pixels())):
        index = encoded[place]
        if outcome is not None:
            outcomes[index] = _other_format(sources[index], preprocess, block[place], name(index), *outcome)
        if pixels:
            out[index] = block[place]
    return outcomes


def _pixels(source: object, name: str) -> Pixels:
    """What was given as pixels, with contiguous rows. InputError when it is something else."""
    if not isinstance(source, np.ndarray):
        kind = type(source).__name__
        raise InputError(f"{name}: expected a path, bytes or an array of pixels, got {kind}")
    if source.dtype != np.uint8 or source.ndim != 3 or source.shape[2] != 3 or source.size == 0:
        raise InputError(f"{name}: expected RGB pixels uint8 (height, width, 3), got {source.dtype} {source.shape}")
    return np.ascontiguousarray(source)


def _other_format(
    source: Source, preprocess: Preprocess, out: Tensors, name: str, unsupported: bool, message: str
) -> ImageError | None:
    """What the core could not decode: by Pillow where it is another format; else what is wrong."""
    try:
        if not unsupported:
            raise ImageError(f"{name}: {message}")
        data = source if isinstance(source, bytes) else read_bytes(Path(str(source)))
        pixels = decode_other(data, preprocess.decode.exif, name)
        try:
            preprocess_pixels(pixels, preprocess, out)
        except ImageError as error:
            raise ImageError(f"{name}: {error}") from error
    except ImageError as error:
        return error
    return None


def preprocess_bytes(data: bytes, preprocess: Preprocess, name: str) -> NDArray[np.float32]:
    """Encoded image -> float32 `(3, H, W)`. Raises ImageError naming `name`."""
    return _one(data, preprocess, name)


def preprocess_file(path: Path, preprocess: Preprocess) -> NDArray[np.float32]:
    """`preprocess_bytes` of a file."""
    return _one(path, preprocess, str(path))


def _one(source: Source, preprocess: Preprocess, name: str) -> NDArray[np.float32]:
    out = np.empty((1, *preprocess.output_shape), dtype=np.float32)
    (error,) = preprocess_batch([source], preprocess, out, names=[name])
    if error is not None:
        raise error
    tensor: NDArray[np.float32] = out[0]
    return tensor
