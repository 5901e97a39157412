"""Batches of preprocessed images, and what to do with the bad ones among them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..core.errors import ImageError
from ..preprocess.ops import Preprocess
from ..preprocess.pipeline import preprocess_batch

BadImage = Callable[[Path, ImageError], None]


def make_batch(
    paths: Sequence[Path], start: int, size: int, preprocess: Preprocess, threads: int
) -> tuple[range, NDArray[np.float32], list[ImageError | None]]:
    """At most `size` images from `start` on: indices, tensors float32 `(n, 3, H, W)`, and what is wrong with any."""
    indices = range(start, min(start + size, len(paths)))
    tensors = np.empty((len(indices), *preprocess.output_shape), dtype=np.float32)
    return indices, tensors, preprocess_batch([paths[i] for i in indices], preprocess, tensors, threads)


def good_ones(
    indices: range, tensors: NDArray[np.float32], errors: Sequence[ImageError | None]
) -> tuple[list[int], NDArray[np.float32]]:
    """Indices and tensors without the bad images."""
    good = [index for index, error in zip(indices, errors, strict=True) if error is None]
    return good, tensors if len(good) == len(indices) else tensors[[index - indices.start for index in good]]


def report_bad(paths: Sequence[Path], start: int, errors: Sequence[ImageError | None], on_bad: BadImage | None) -> None:
    """Tells of each bad image of a batch, or raises the first."""
    for index, error in enumerate(errors, start):
        if error is not None:
            if on_bad is None:
                raise error
            on_bad(paths[index], error)


def stream_tensors(
    paths: Sequence[Path], preprocess: Preprocess, batch_size: int, threads: int, on_bad: BadImage | None
) -> Iterator[tuple[list[int], NDArray[np.float32]]]:
    """Preprocessed batches: indices into `paths`, and float32 `(n, 3, H, W)`.

    The next batch is made, on `threads` threads of the core, while one is used.
    """
    if not paths:
        return
    with ThreadPoolExecutor(1, thread_name_prefix="edgerecall-preprocess") as ahead:
        pending = ahead.submit(make_batch, paths, 0, batch_size, preprocess, threads)
        for start in range(0, len(paths), batch_size):
            indices, tensors, errors = pending.result()
            if start + batch_size < len(paths):
                pending = ahead.submit(make_batch, paths, start + batch_size, batch_size, preprocess, threads)
            report_bad(paths, start, errors, on_bad)
            good, kept = good_ones(indices, tensors, errors)
            if good:
                yield good, kept
