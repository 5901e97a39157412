"""So many pieces of work at a time, whoever came first going first."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

Step = Callable[[], bool]  # a turn's work; whether there is more, for the next


class _Job:
    """A caller's steps while it waits. ended: whether all are done, or (False) it has a turn to do them itself."""

    def __init__(self, step: Step) -> None:
        self.step = step
        self.ended: Future[bool] = Future()
        self.own = True  # until it is known that no thread of the turns' own does it


class Turns:
    """At most `count` steps at a time, of as many callers as come. Thread-safe; close() it.

    A step is done by the thread that brings it as long as there is a turn for it, and beyond that by `count` threads of
    its own: they find in their cores' caches what the step before needed too, which as many threads as there are
    callers would not, and a caller is woken once, at the end.
    """

    def __init__(self, count: int) -> None:
        self._pool = ThreadPoolExecutor(count, "edgerecall-embed")
        self._lock = threading.Lock()
        self._free, self._waiting = count, deque[_Job]()
        self._closed, self._process = False, os.getpid()

    def run(self, step: Step) -> None:
        """Calls `step` until it returns False, or raises what it does; after each call those that wait have theirs.
        Where the wait is interrupted, no more calls begin.
        """
        job = _Job(step)
        try:
            with self._lock:
                turn = self._free > 0
                if turn:
                    self._free -= 1
                else:
                    self._waiting.append(job)
            while turn or not self._done(job):
                turn = False
                if self._alone(job):
                    return
        finally:
            del job, step  # an error that it raised holds this frame, and they hold the images

    def _done(self, job: _Job) -> bool:
        """Waits: whether the job has ended. If not, its caller has a turn."""
        try:
            return job.ended.result()
        except BaseException:
            with self._lock:
                if job in self._waiting:
                    self._waiting.remove(job)
                elif not job.ended.cancel() and not job.own and job.ended.exception() is None:
                    self._pass_on()  # the turn had come just then
            raise

    def _alone(self, job: _Job) -> bool:
        """Calls its step, by a turn, as long as nobody waits. Whether it has ended."""
        more = True
        try:
            while more:
                more = False  # unless it says otherwise
                more = job.step()
                with self._lock:
                    if self._waiting:
                        break
        finally:
            with self._lock:
                if more:
                    job.ended, job.own = Future(), True
                    self._waiting.append(job)
                self._pass_on()
        return not more

    def _pass_on(self) -> None:
        """Gives a turn to whoever has waited longest: to a thread of its own with that job, or, where it is closed,
        Python ends or this is a forked process, to the caller itself. With the lock.
        """
        if not self._waiting:
            self._free += 1
            return
        job = self._waiting.popleft()
        try:
            if self._closed or os.getpid() != self._process:
                raise RuntimeError
            self._pool.submit(self._work, job)
        except RuntimeError:  # it may be in the pool's queue all the same, where only a new thread could not be had
            job.own = False
            job.ended.set_result(False)

    def _work(self, job: _Job) -> None:
        """A thread of its own, by a turn: job after job, a step each."""
        with self._lock:  # which the thread that gave the turn holds until it knows
            if not job.own:
                return
        while True:
            more, failure = False, None
            try:
                more = not job.ended.cancelled() and job.step()
            except BaseException as error:
                failure = error
            with self._lock:
                more = more and not job.ended.cancelled()
                if more:
                    self._waiting.append(job)
                elif failure is not None and not job.ended.cancelled():
                    job.ended.set_exception(failure)
                elif not job.ended.cancelled():
                    job.ended.set_result(True)
                del failure
                if self._closed or not self._waiting:
                    self._pass_on()
                    del job
                    return
                job = self._waiting.popleft()

    def close(self) -> None:
        """Ends its threads, after the steps at work; who waits or comes later has turns of its own."""
        with self._lock:
            self._closed = True
        self._pool.shutdown()
