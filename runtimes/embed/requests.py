"""Submitted images, and whoever is told their embeddings."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future
from pathlib import Path
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from ..preprocess.pipeline import Source

LOGGER = logging.getLogger("edgerecall")
Answer = Callable[[NDArray[np.float32] | None, BaseException | None], object]  # the embedding, or why there is none


TOGETHER = 4  # embeddings that are told at once, about, where more images wait
LATE_S = 0.05  # that one may be told late because of it


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


Told = tuple[Waiting, NDArray[np.float32] | None, BaseException | None]


class Telling:
    """Tells embeddings, several at once while enough images wait for all replicas.

    Whoever is told wakes up, sends an answer and takes the next request: code that has left the caches during an
    inference, and is there for all but the first of several. So replicas of a small network get more done; what a busy
    model has found is told at most about `LATE_S` later. Thread-safe.
    """

    def __init__(self, replicas: int) -> None:
        self._replicas = replicas
        self._lock = Lock()
        self._held: list[Told] = []
        self._since = 0.0

    def add(self, told: Sequence[Told], waiting: int, seconds: float) -> None:
        """Tells these and what was held, or holds all until the next call, which images that are waiting lead to.

        told: of a micro-batch, maybe none. waiting: images. seconds: that the micro-batch took, as the next one will.
        """
        now = time.perf_counter()
        with self._lock:
            if not self._held:
                self._since = now
            self._held += told
            soon = now + seconds - self._since <= LATE_S
            if len(self._held) < TOGETHER and waiting > 2 * self._replicas and soon:
                return
            held, self._held = self._held, []
        for request, found, error in held:
            request.tell(found, error)
