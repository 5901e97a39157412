"""The time of a request."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from typing import Any

Answer = Callable[[Any, BaseException | None], object]  # what was found, or why nothing


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
        """

        def ask(answer: Answer) -> Callable[[], object]:
            def done(ended: Future[Any]) -> None:  # by its argument: a future keeps its callbacks
                error = CancelledError() if ended.cancelled() else ended.exception()
                answer(ended.result() if error is None else None, error)

            future.add_done_callback(done)
            return future.cancel

        return self.asked(ask, ended)

    def asked(
        self, ask: Callable[[Answer], Callable[[], object]], ended: Callable[[], object] = lambda: None
    ) -> asyncio.Future[Any]:
        """`job` of what is no future: `ask` is given who is told the result, or what failed, in any thread, and gives
        what drops it: CancelledError is told then, unless it has begun.

        Cheaper than the tasks and scopes by which a coroutine is given a timeout: a timer and one call from the thread.
        """
        loop = self._loop
        job: asyncio.Future[Any] = loop.create_future()
        has_ended = False

        def finish(found: Any, error: BaseException | None) -> None:
            nonlocal has_ended
            has_ended = True
            ended()
            if job.done():
                return
            if error is None:
                job.set_result(found)
            elif isinstance(error, CancelledError):
                job.cancel()
            else:
                job.set_exception(error)

        def answer(found: Any, error: BaseException | None) -> None:
            try:
                loop.call_soon_threadsafe(finish, found, error)
            except RuntimeError:
                if not loop.is_closed():
                    raise

        drop = ask(answer)
        timer = loop.call_at(self._at, self._over, job)

        def over(_: asyncio.Future[Any]) -> None:
            timer.cancel()
            if not has_ended:
                drop()

        job.add_done_callback(over)
        return job

    def _over(self, job: asyncio.Future[Any]) -> None:
        if not job.done():
            job.set_exception(TooLate(f"not done within {self._seconds:g} s"))
