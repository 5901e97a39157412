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
    """By one thread, while the others are at work."""
    ready, sizes, done = threading.Semaphore(0), list[int](), threading.Event()
    gates = [threading.Event() for _ in range(threads)]

    def work(items: Sequence[int]) -> None:
        if items[0] < 0:  # which keeps a thread until its gate is opened
            ready.release()
            gates[items[0]].wait(10)
            return
        sizes.append(len(items))
        if sum(sizes) == waiting:
            done.set()

    batcher = MicroBatcher(work, size, threads)
    for number in range(threads):
        batcher.put([-1 - number])
        assert ready.acquire(timeout=10)
    batcher.put(range(waiting))
    gates[0].set()
    assert done.wait(10)
    for gate in gates:
        gate.set()
    batcher.stop()
    assert sizes == expected
