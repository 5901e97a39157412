"""Submitted images, and whoever is told their embeddings."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future
from pathlib import Path
from threading import Condition, Lock, Thread

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
    model has found is told at most about `LATE_S` later, also where what follows takes longer, or hangs. Thread-safe.
    """

    def __init__(self, replicas: int) -> None:
        self._replicas = replicas
        self._changed = Condition(Lock())
        self._held: list[Told] = []
        self._since = 0.0
        self._watcher: Thread | None = None
        self._resting = self._closed = False

    def add(self, told: Sequence[Told], waiting: int, seconds: float) -> None:
        """Tells these and what was held, or holds all until the next call, which images that are waiting lead to.

        told: of a micro-batch, maybe none. waiting: images. seconds: that the micro-batch took, as the next one will.
        """
        now = time.perf_counter()
        with self._changed:
            if not self._held:
                self._since = now
            self._held += told
            soon = now + seconds - self._since <= LATE_S
            if len(self._held) < TOGETHER and waiting > 2 * self._replicas and soon:
                if self._watcher is None:
                    self._watcher = Thread(target=self._watch, daemon=True)
                    self._watcher.start()
                if self._resting:  # otherwise it looks soon: to wake it each time would cost more than is won
                    self._changed.notify()
                return
            held, self._held = self._held, []
        _tell(held)

    def close(self) -> None:
        """Ends the watcher, once nothing is to be added. Returns at once: who is told may close."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def _watch(self) -> None:
        """Tells what is late though no call came."""
        while True:
            with self._changed:
                while not self._closed and (left := self._left()) != 0:
                    self._resting = left is None
                    self._changed.wait(left)
                    self._resting = False
                if self._closed:
                    return
                late, self._held = self._held, []
            _tell(late)

    def _left(self) -> float | None:
        """Seconds until what is held is late; None where nothing is."""
        return max(self._since + LATE_S - time.perf_counter(), 0) if self._held else None


def _tell(told: Sequence[Told]) -> None:
    for request, found, error in told:
        request.tell(found, error)
