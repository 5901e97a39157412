"""So many pieces of work at a time, whoever came first going first."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError, ThreadPoolExecutor

Step = Callable[[], bool]  # a turn's work; whether there is more, for the next


class Turns:
    """About `count` steps at a time, of as many callers as come. Thread-safe; close() it.

    A step is done by the thread that brings it as long as fewer than `count` are there, and beyond that by `count`
    threads of its own: they find in their cores' caches what the step before needed too, which as many threads as
    there are callers would not, and a caller is woken once, at the end.
    """

    def __init__(self, count: int) -> None:
        self._count, self._pool = count, ThreadPoolExecutor(count, "edgerecall-embed")
        self._lock = threading.Lock()
        self._callers, self._closed, self._process = 0, False, os.getpid()

    def run(self, step: Step) -> None:
        """Calls `step` until it returns False, or raises what it does; after each call those that wait have theirs.
        Where the wait is interrupted, no more calls begin.
        """
        with self._lock:
            self._callers += 1
        done: Future[None] = Future()
        try:
            if self._alone(step, done):
                done.result()
        finally:
            done.cancel()
            with self._lock:
                self._callers -= 1
            del step, done  # an error that it raised holds this frame, and they hold the images

    def _alone(self, step: Step, done: Future[None]) -> bool:
        """Calls `step` as long as nobody waits. Whether its own threads go on."""
        while True:
            with self._lock:
                if self._callers > self._count and self._handed(step, done):
                    return True
            if not step():
                return False

    def _handed(self, step: Step, done: Future[None]) -> bool:
        """Whether its own threads take it; not when it is closed or Python ends, nor in a forked process."""
        if self._closed or os.getpid() != self._process:
            return False
        valid = [True]
        try:
            self._pool.submit(self._turn, step, done, valid)
        except RuntimeError:  # it may be in the queue all the same, where only a new thread could not be had
            valid.clear()
            return False
        return True

    def _turn(self, step: Step, done: Future[None], valid: list[bool]) -> None:
        """A turn by one of its own threads."""
        with self._lock:  # which the thread that handed it over holds until it knows
            if not valid:
                return
        more = not done.cancelled()
        try:
            while more:
                more = step() and not done.cancelled()
                with self._lock:
                    if more and self._handed(step, done):
                        return
        except BaseException as error:
            with contextlib.suppress(InvalidStateError):  # nobody waits any more
                done.set_exception(error)
            del step, done
            return
        with contextlib.suppress(InvalidStateError):
            done.set_result(None)

    def close(self) -> None:
        """Ends its threads, after what waits; who comes later works alone."""
        with self._lock:
            self._closed = True
        self._pool.shutdown()
