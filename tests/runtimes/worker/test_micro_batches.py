"""How many of those that wait are taken at once."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest

from edgerecall.runtimes.worker.micro_batches import MicroBatcher


@pytest.mark.parametrize(
    ("threads", "size", "waiting", "expected"),
    [
        (1, 8, 17, [8, 8, 1]),
        (1, 4, 3, [3]),
        (2, 8, 8, [4, 2, 1, 1]),  # half of what is left each time
        (2, 3, 8, [3, 3, 1, 1]),
        (4, 8, 4, [1, 1, 1, 1]),
    ],
)
def test_what_waits_is_shared(threads: int, size: int, waiting: int, expected: list[int]) -> None:
    ready, sizes, turn = threading.Semaphore(0), list[int](), threading.Event()

    def work(items: Sequence[int]) -> None:
        if items[0] < 0:  # which each thread is kept by until all wait
            ready.release()
            turn.wait(10)
            with one:
                pass
        else:
            sizes.append(len(items))

    one = threading.Lock()
    batcher = MicroBatcher(work, size, threads)
    for _ in range(threads):
        batcher.put([-1])
        assert ready.acquire(timeout=10)
    with one:
        batcher.put(range(waiting))
        turn.set()
    batcher.stop()
    assert sum(sizes) == waiting
    if threads == 1:
        assert sizes == expected
    else:  # which thread comes first is open, how much is taken is not
        assert max(sizes) <= max(expected) and len(sizes) >= len(expected) - threads
