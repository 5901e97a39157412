"""The time of a request."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any


class TooLate(Exception):
    """The request's time is over."""


class Deadline:
    """So many seconds from now on, for whatever an event loop waits for."""

    def __init__(self, loop: asyncio.AbstractEventLoop, seconds: float) -> None:
        self._loop, self._seconds, self._at = loop, seconds, loop.time() + seconds

    def job(self, future: Future[Any], ended: Callable[[], object] = lambda: None) -> asyncio.Future[Any]:
        """What a thread's future gives, TooLate where that is late. ended: is called once that has ended, in the loop.

        Cheaper than the tasks and scopes by which a coroutine is given a timeout: a timer and one call from the thread.
        """
        job: asyncio.Future[Any] = self._loop.create_future()

        def over() -> None:
            if not job.done():
                job.set_exception(TooLate(f"not done within {self._seconds:g} s"))

        timer = self._loop.call_at(self._at, over)

        def finish() -> None:
            timer.cancel()
            ended()
            if job.done():
                return
            if future.cancelled():
                job.cancel()
            elif error := future.exception():
                job.set_exception(error)
            else:
                job.set_result(future.result())

        def call(_: Future[Any]) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(finish)

        future.add_done_callback(call)
        return job
