"""The time of a request."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from typing import Any


class TooLate(Exception):
    """The request's time is over."""


class Deadline:
    """So many seconds from now on, for whatever an event loop waits for."""

    def __init__(self, loop: asyncio.AbstractEventLoop, seconds: float) -> None:
        self._loop, self._seconds, self._at = loop, seconds, loop.time() + seconds

    def at_most(self, seconds: float) -> Deadline:
        """The sooner of this one and so many seconds from now on."""
        sooner = Deadline(self._loop, seconds)
        return sooner if sooner._at < self._at else self

    def job(self, future: Future[Any], ended: Callable[[], object] = lambda: None) -> asyncio.Future[Any]:
        """What a thread's future gives, TooLate where that is late. What has not begun by then, or when nobody waits
        any longer, never is. ended: is called in the loop once the future has ended.

        Cheaper than the tasks and scopes by which a coroutine is given a timeout: a timer and one call from the thread.
        """
        job: asyncio.Future[Any] = self._loop.create_future()
        timer = self._loop.call_at(self._at, self._over, job)

        has_ended = False

        def over(_: asyncio.Future[Any]) -> None:
            timer.cancel()
            if not has_ended:
                future.cancel()

        job.add_done_callback(over)

        def finish(done: Future[Any]) -> None:
            nonlocal has_ended
            has_ended = True
            ended()
            if job.done():
                return
            try:
                error = done.exception()
            except CancelledError:
                job.cancel()
                return
            if error is None:
                job.set_result(done.result())
            else:
                job.set_exception(error)

        def call(done: Future[Any]) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(finish, done)

        future.add_done_callback(call)
        return job

    def _over(self, job: asyncio.Future[Any]) -> None:
        if not job.done():
            job.set_exception(TooLate(f"not done within {self._seconds:g} s"))
