"""One submitted image, and whoever is told its embedding."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from pathlib import Path
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from ..preprocess.pipeline import Source

Answer = Callable[[NDArray[np.float32] | None, BaseException | None], object]  # the embedding, or why there is none


class Request:
    """An image that waits. answer: is told its embedding or what failed, once, in the thread that embedded it."""

    def __init__(self, image: Source, answer: Answer) -> None:
        self.image, self.answer = image, answer
        self.born = time.perf_counter()
        self._turn = Lock()  # whoever takes it first: the thread that embeds it, or who drops it

    @property
    def name(self) -> str:
        """What messages call it."""
        return str(self.image) if isinstance(self.image, Path) else "the image"

    def begin(self) -> bool:
        """Whether it is still wanted; from now on it cannot be dropped."""
        return self._turn.acquire(blocking=False)

    def drop(self) -> None:
        """Unless it has begun it never does, and its answer is told CancelledError."""
        if self._turn.acquire(blocking=False):
            self.answer(None, CancelledError())


class FutureRequest(Request):
    """One whose answer is a future; whoever cancels that drops it."""

    def __init__(self, image: Source) -> None:
        super().__init__(image, self._settle)
        self.future: Future[NDArray[np.float32]] = Future()

    def begin(self) -> bool:
        return self.future.set_running_or_notify_cancel()

    def _settle(self, found: NDArray[np.float32] | None, error: BaseException | None) -> None:
        if found is None:
            self.future.set_exception(error)
        else:
            self.future.set_result(found)
