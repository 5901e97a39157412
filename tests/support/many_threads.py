"""One model under many threads."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

import edgerecall

THREADS, IMAGES = 16, 2000


def encoded(data: Path) -> list[bytes]:
    """The test images' files."""
    return [path.read_bytes() for path in sorted(data.glob("*_final/*.JPG"))[:40]]


def assert_threads_change_nothing(model: edgerecall.EmbeddingModel, images: list[bytes]) -> None:
    """2,000 images by 16 threads, one at a time, in batches and by `submit`, against the same by one thread."""
    alone = np.concatenate([model.embed_bytes([image]) for image in images])
    batched = model.embed_bytes(images)
    assert np.ptp(alone, axis=0).max() > 1e-3, "another image must show"

    def work(thread: int) -> None:
        mine = range(thread, IMAGES, THREADS)
        for count, index in enumerate(mine):
            one = index % len(images)
            if count % 25 == 24:
                assert (model.embed_bytes(images) == batched).all()
            elif count % 5 == 4:
                assert np.abs(model.submit(images[one]).result(60) - alone[one]).max() < 1e-5
            else:
                assert (model.embed_bytes([images[one]])[0] == alone[one]).all()

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(work, range(THREADS)))
