"""Loading: decoding and transforming in threads, a few batches ahead, the same batches whatever the timing."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..runtimes.errors import ImageError, InputError
from ..runtimes.image_list import ImageList
from ..runtimes.images import load_rgb
from .augment import Augmentation

logger = logging.getLogger(__name__)
AHEAD = 3
REPLACEMENTS = 20


@dataclass(frozen=True)
class Batch:
    """images float32 `(B, 3, H, W)`, labels int64 `(B,)`, indices int64 `(B,)` into the list."""

    images: NDArray[np.float32]
    labels: NDArray[np.int64]
    indices: NDArray[np.int64]


class TrainLoader:
    """Turns index batches into tensors. A bad image is reported once and another of its class stands in."""

    def __init__(self, images: ImageList, augment: Augmentation, exif: str, workers: int, seed: int) -> None:
        self.images, self.augment, self.exif, self.seed = images, augment, exif, seed
        self.workers = max(workers, 1)
        self.bad: set[int] = set()
        self.by_label: dict[int, NDArray[np.int64]] = {
            int(label): np.flatnonzero(images.labels == label) for label in np.unique(images.labels)
        }

    def sample(self, index: int, step: int, position: int) -> tuple[NDArray[np.float32], int]:
        """One augmented image and the index it is of; random by (seed, step, position) alone."""
        rng = np.random.default_rng((self.seed, step, position))
        for _ in range(REPLACEMENTS):
            try:
                return self.augment(load_rgb(self.images.file(index), self.exif), rng), index
            except ImageError as error:
                if index not in self.bad:
                    self.bad.add(index)
                    logger.warning("bad image, replaced by another of its class: %s", error)
                index = int(rng.choice(self.by_label[int(self.images.labels[index])]))
        raise InputError(
            f"class {int(self.images.labels[index])}: no readable image found in {REPLACEMENTS} tries;"
            " remove the class from the list"
        )

    def batches(self, index_batches: Iterable[NDArray[np.int64]]) -> Generator[Batch, None, None]:
        """Batches in the order of `index_batches`."""
        queue: deque[tuple[list[Future[Any]], NDArray[np.int64]]] = deque()
        source = enumerate(index_batches)
        pool = ThreadPoolExecutor(self.workers, thread_name_prefix="edgerecall-loader")
        try:
            while True:
                while len(queue) < AHEAD:
                    following = next(source, None)
                    if following is None:
                        break
                    step, indices = following
                    futures = [
                        pool.submit(self.sample, int(index), step, position) for position, index in enumerate(indices)
                    ]
                    queue.append((futures, indices))
                if not queue:
                    return
                results = [future.result() for future in queue.popleft()[0]]
                used = np.array([index for _, index in results], dtype=np.int64)
                yield Batch(np.stack([image for image, _ in results]), self.images.labels[used], used)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
