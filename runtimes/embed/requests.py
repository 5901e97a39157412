"""One submitted image, and whoever is told its embedding."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from pathlib import Path
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from ..preprocess.pipeline import Source

LOGGER = logging.getLogger("edgerecall")
Answer = Callable[[NDArray[np.float32] | None, BaseException | None], object]  # the embedding, or why there is none


class Waiting:
    """An image that waits. Once it has begun, `tell` is called, once, by the thread that embedded it; it never raises:
    the thread has others to tell.
    """

    def __init__(self, image: Source) -> None:
        self.image, self.born = image, time.perf_counter()

    @property
    def name(self) -> str:
        """What messages call it."""
        return str(self.image) if isinstance(self.image, Path) else "the image"

    def begin(self) -> bool:
        """Whether it is still wanted; from now on it cannot be dropped."""
        raise NotImplementedError

    def tell(self, found: NDArray[np.float32] | None, error: BaseException | None) -> None:
        """Its embedding, or what failed."""
        raise NotImplementedError


class Request(Waiting):
    """One of who is told by a call."""

    def __init__(self, image: Source, answer: Answer) -> None:
        super().__init__(image)
        self._answer = answer
        self._turn = Lock()  # whoever takes it first: the thread that embeds it, or who drops it

    def begin(self) -> bool:
        return self._turn.acquire(blocking=False)

    def tell(self, found: NDArray[np.float32] | None, error: BaseException | None) -> None:
        try:
            self._answer(found, error)
        except Exception:
            LOGGER.exception("who asked for an embedding failed when told")

    def drop(self) -> None:
        """Unless it has begun it never does, and who asked is told CancelledError."""
        if self._turn.acquire(blocking=False):
            self.tell(None, CancelledError())


class FutureRequest(Waiting):
    """One of who waits for a future; whoever cancels that drops it."""

    def __init__(self, image: Source) -> None:
        super().__init__(image)
        self.future: Future[NDArray[np.float32]] = Future()

    def begin(self) -> bool:
        return self.future.set_running_or_notify_cancel()

    def tell(self, found: NDArray[np.float32] | None, error: BaseException | None) -> None:
        if found is None:
            self.future.set_exception(error)
        else:
            self.future.set_result(found)
