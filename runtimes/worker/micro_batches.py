"""Micro-batching: what waits is taken together, so that a busy model answers many in one inference.

Runs in sidecars too: standard library only.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Generic, TypeVar

Item = TypeVar("Item")


class MicroBatcher(Generic[Item]):
    """Hands waiting items to `work`, at most `size` at once, on threads of its own: what waits is shared among them.

    Thread-safe. work: must not raise; with several `threads` it is called from each of them at the same time. An item
    is taken as soon as a thread is free: it never waits for a batch to fill.
    """

    def __init__(self, work: Callable[[Sequence[Item]], None], size: int, threads: int = 1) -> None:
        self._work, self._size = work, size
        self._waiting: queue.SimpleQueue[Item | None] = queue.SimpleQueue()
        self._threads = [threading.Thread(target=self._serve, daemon=True) for _ in range(threads)]
        for thread in self._threads:
            thread.start()

    @property
    def waiting(self) -> int:
        """Items that no thread has taken."""
        return self._waiting.qsize()

    def put(self, items: Iterable[Item]) -> None:
        """Only puts them down, in order."""
        for item in items:
            self._waiting.put(item)

    def _serve(self) -> None:
        while True:
            batch = [self._waiting.get()]
            share = -(-(1 + self._waiting.qsize()) // len(self._threads))  # the others are free soon, or already
            while batch[-1] is not None and len(batch) < min(share, self._size):
                try:
                    batch.append(self._waiting.get_nowait())
                except queue.Empty:
                    break
            stop = batch[-1] is None
            items = [item for item in batch if item is not None]
            if items:
                self._work(items)
            if stop:
                return

    def stop(self) -> None:
        """Returns when what was put down before is done; called from `work`, when the other threads have ended."""
        for _ in self._threads:
            self._waiting.put(None)
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join()
