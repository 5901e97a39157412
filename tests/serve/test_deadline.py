"""What an event loop waits for ends in time, and what nobody waits for is not begun."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import CancelledError, ThreadPoolExecutor

import pytest

from edgerecall.serve.deadline import Deadline, TooLate


def test_what_is_late_is_not_begun() -> None:
    begun, ended = [], []

    async def main() -> None:
        deadline = Deadline(asyncio.get_running_loop(), 0.1)
        jobs = [
            deadline.job(pool.submit(lambda at=at: (begun.append(at), time.sleep(0.4))), lambda at=at: ended.append(at))
            for at in range(4)
        ]
        start = time.monotonic()
        for job in jobs:
            with pytest.raises(TooLate, match=r"not done within 0\.1 s"):
                await job
        assert time.monotonic() - start < 0.35
        await asyncio.sleep(0.6)

    with ThreadPoolExecutor(1) as pool:
        asyncio.run(main())
    assert begun == [0] and sorted(ended) == [0, 1, 2, 3]


def test_what_nobody_waits_for_is_not_begun() -> None:
    begun: list[int] = []

    async def main() -> None:
        deadline = Deadline(asyncio.get_running_loop(), 10)
        first = deadline.job(pool.submit(time.sleep, 0.3))
        task = asyncio.ensure_future(deadline.job(pool.submit(begun.append, 1)))
        await asyncio.sleep(0.05)
        task.cancel()
        await first

    with ThreadPoolExecutor(1) as pool:
        asyncio.run(main())
    assert begun == []


def test_results_failures_and_an_end_of_the_loop() -> None:
    async def main() -> None:
        deadline = Deadline(asyncio.get_running_loop(), 10)
        assert await deadline.job(pool.submit(int, "7")) == 7
        with pytest.raises(ValueError, match="invalid literal"):
            await deadline.job(pool.submit(int, "x"))
        deadline.job(pool.submit(time.sleep, 0.3))  # ends after the loop
        with pytest.raises(TooLate):
            await Deadline(asyncio.get_running_loop(), -1).job(pool.submit(time.sleep, 0.1))

    with ThreadPoolExecutor(2) as pool:
        asyncio.run(main())


def test_nothing_is_kept_of_what_was_answered() -> None:
    """Not even until the garbage collector comes."""

    class Answer:
        """Something large."""

    async def main() -> weakref.ref[Answer]:
        deadline = Deadline(asyncio.get_running_loop(), 10)
        begun = threading.Event()  # not before it is waited for
        job = deadline.job(pool.submit(lambda: (begun.wait(), Answer())[1]))
        begun.set()
        answer = await job
        await asyncio.sleep(0.01)
        return weakref.ref(answer)

    async def asked() -> weakref.ref[Answer]:
        deadline = Deadline(asyncio.get_running_loop(), 10)

        def ask(tell: Callable[[object, BaseException | None], object]) -> Callable[[], object]:
            threading.Timer(0.02, lambda: tell(Answer(), None)).start()
            return lambda: None

        answer = await deadline.asked(ask)
        await asyncio.sleep(0.01)
        return weakref.ref(answer)

    gc.disable()
    try:
        with ThreadPoolExecutor(1) as pool:
            assert asyncio.run(main())() is None
        assert asyncio.run(asked())() is None
    finally:
        gc.enable()


def test_what_is_asked_by_a_call() -> None:
    """Told from another thread, dropped when it is late or not waited for, and failed as it says."""
    ended, dropped = [], []

    def asked(deadline: Deadline, answer: tuple[object, BaseException | None] | None) -> asyncio.Future[object]:
        def ask(tell: Callable[[object, BaseException | None], object]) -> Callable[[], object]:
            if answer is not None:
                threading.Timer(0.05, tell, answer).start()
            return lambda: (dropped.append(answer), tell(None, CancelledError()))

        return deadline.asked(ask, lambda: ended.append(answer))

    async def main() -> Callable[[object, BaseException | None], object]:
        deadline = Deadline(asyncio.get_running_loop(), 0.3)
        assert await asked(deadline, (7, None)) == 7
        with pytest.raises(ValueError, match="no"):
            await asked(deadline, (None, ValueError("no")))
        assert not dropped and len(ended) == 2
        forgotten = asked(deadline, None)
        forgotten.cancel()
        with pytest.raises(TooLate, match=r"not done within 0\.3 s"):
            await asked(deadline, None)
        await asyncio.sleep(0.05)
        assert dropped == [None, None] and len(ended) == 4
        with pytest.raises(ZeroDivisionError):
            deadline.asked(lambda tell: 1 // 0, lambda: ended.append(None))
        await asyncio.sleep(0)
        told = list[Callable[[object, BaseException | None], object]]()
        longer = Deadline(asyncio.get_running_loop(), 9)
        late.append(longer.asked(lambda tell: (told.append(tell), lambda: None)[1], lambda: ended.append(None)))
        return told[0]

    late = list[asyncio.Future[object]]()
    tell = asyncio.run(main())
    tell(8, None)  # the loop has ended
    assert len(ended) == 4 and not late[0].done()
