"""Executes a spec's preprocessing in the C++ core: encoded images to the tensors that the model was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from . import _native
from .errors import ImageError
from .images import Pixels, decode_other, max_pixels, read_bytes
from .spec import CenterCrop, Preprocess, ResizeExact, ResizeShort

Tensors = NDArray[np.float32] | NDArray[np.float16]


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
    except _native.InputError as error:
        raise ImageError(str(error)) from error


def preprocess_pixels(image: Pixels, preprocess: Preprocess, out: Tensors) -> None:
    """RGB uint8 `(h, w, 3)` -> `(3, H, W)`, float32 or float16, written into `out`."""
    try:
        plan(preprocess).run(image, out, max_pixels())
    except _native.InputError as error:
        raise ImageError(str(error)) from error


def preprocess_batch(
    sources: Sequence[Path | bytes],
    preprocess: Preprocess,
    out: Tensors,
    threads: int = 1,
    names: Sequence[str] | None = None,
) -> list[ImageError | None]:
    """Encoded images, by path or as bytes, into the slots of `out`: `(n, 3, H, W)`, C-contiguous, float32 or float16.

    Runs on `threads` threads without the interpreter's lock. Returns for each image None, or why its slot is void.
    names: what messages call them; paths call themselves when left out.
    """
    given = [source if isinstance(source, bytes) else str(source) for source in sources]
    core = plan(preprocess)
    outcomes: list[ImageError | None] = []
    for index, outcome in enumerate(core.run_batch(given, out, threads, max_pixels())):
        if outcome is None:
            outcomes.append(None)
            continue
        unsupported, message = outcome
        source = sources[index]
        name = names[index] if names else f"image {index}" if isinstance(source, bytes) else str(source)
        try:
            if not unsupported:
                raise ImageError(f"{name}: {message}")
            data = source if isinstance(source, bytes) else read_bytes(source)
            pixels = decode_other(data, preprocess.decode.exif, name)
            try:
                preprocess_pixels(pixels, preprocess, out[index])
            except ImageError as error:
                raise ImageError(f"{name}: {error}") from error
            outcomes.append(None)
        except ImageError as error:
            outcomes.append(error)
    return outcomes


def preprocess_bytes(data: bytes, preprocess: Preprocess, name: str) -> NDArray[np.float32]:
    """Encoded image -> float32 `(3, H, W)`. Raises ImageError naming `name`."""
    return _one(data, preprocess, name)


def preprocess_file(path: Path, preprocess: Preprocess) -> NDArray[np.float32]:
    """`preprocess_bytes` of a file."""
    return _one(path, preprocess, str(path))


def _one(source: Path | bytes, preprocess: Preprocess, name: str) -> NDArray[np.float32]:
    out = np.empty((1, *preprocess.output_shape), dtype=np.float32)
    (error,) = preprocess_batch([source], preprocess, out, names=[name])
    if error is not None:
        raise error
    tensor: NDArray[np.float32] = out[0]
    return tensor
