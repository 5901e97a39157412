"""Steps go by who came first, by few threads, and none is lost."""

from __future__ import annotations

import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from edgerecall.runtimes.embed.turns import Turns


def begun(work: Callable[[], object], turns: Turns, callers: int) -> threading.Thread:
    """A thread, once so many callers are there."""
    thread = threading.Thread(target=work)
    thread.start()
    end = time.monotonic() + 10
    while turns._callers < callers:
        assert time.monotonic() < end
        time.sleep(0.001)
    return thread


@contextmanager
def busy(turns: Turns) -> Iterator[threading.Event]:
    """All of its threads at work (for one turn: a caller's and its own), until the event or the end."""
    end = threading.Event()
    threads = [begun(lambda: turns.run(lambda: not end.wait(10)), turns, callers) for callers in (1, 2)]
    yield end
    end.set()
    for thread in threads:
        thread.join(10)


def steps(name: str, count: int, into: list[str]) -> Callable[[], bool]:
    """So many, each of which tells its name."""
    left = [count]

    def step() -> bool:
        into.append(name)
        left[0] -= 1
        return left[0] > 0

    return step


def test_after_each_step_those_that_wait_have_theirs() -> None:
    turns, order = Turns(1), list[str]()
    with busy(turns) as end:
        threads = [
            begun(lambda name=name, count=count: turns.run(steps(name, count, order)), turns, 3 + index)
            for index, (name, count) in enumerate((("a", 3), ("b", 1), ("c", 2)))
        ]
        end.set()
    for thread in threads:
        thread.join(10)
    assert order == ["a", "b", "c", "a", "c", "a"]


def test_a_caller_alone_gives_way_when_others_come() -> None:
    """It began without waiting; the second of its steps waits behind the other's first."""
    turns, order, come, go_on = Turns(1), list[str](), threading.Event(), threading.Event()
    by: list[str] = []

    def first() -> bool:
        order.append("first")
        by.append(threading.current_thread().name.split("_")[0])
        come.wait(10)
        return len(by) < 2

    def second() -> bool:
        order.append("other")
        go_on.wait(10)
        return False

    thread = begun(lambda: turns.run(first), turns, 1)
    other = begun(lambda: turns.run(second), turns, 2)  # in the model's own thread, and stays there
    come.set()
    time.sleep(0.1)
    assert order == ["first", "other"]
    go_on.set()
    for one in (thread, other):
        one.join(10)
    assert order == ["first", "other", "first"] and by[1] == "edgerecall-embed" != by[0]


def test_an_interrupted_wait_drops_its_steps_and_keeps_nobody_out() -> None:
    turns, done = Turns(1), list[str]()
    with busy(turns):
        threading.Timer(0.2, lambda: signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)).start()
        with pytest.raises(KeyboardInterrupt):
            turns.run(steps("dropped", 2, done))
    turns.run(steps("next", 1, done))
    turns.close()
    assert done == ["next"] and turns._callers == 0


def test_interrupted_at_work_no_more_steps_begin() -> None:
    turns, count = Turns(1), 0

    def step() -> bool:
        nonlocal count
        count += 1
        time.sleep(0.05)  # until the caller waits: a signal just before that is seen after it, as with any lock
        if count == 1:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        time.sleep(0.1)
        return count < 100

    with busy(turns) as end:
        end.set()
        with pytest.raises(KeyboardInterrupt):
            turns.run(step)
    turns.close()
    assert count <= 2


def test_few_threads_do_the_work_of_many() -> None:
    turns, lock, now, most = Turns(3), threading.Lock(), 0, 0
    by: Counter[str] = Counter()

    def work(left: list[int]) -> bool:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
            by[threading.current_thread().name.split("_")[0]] += 1
        time.sleep(0.001)
        left[0] -= 1
        with lock:
            now -= 1
        return left[0] > 0

    def caller() -> None:
        for _ in range(10):
            turns.run(lambda left=[5]: work(left))

    threads = [threading.Thread(target=caller) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert most <= 6 and turns._callers == 0  # callers at first, and its own
    assert by.total() == 800 and by["edgerecall-embed"] > 600


def test_failures_and_work_after_its_end_are_the_callers() -> None:
    turns = Turns(1)
    failed: list[BaseException] = []

    def fail() -> None:
        try:
            turns.run(lambda: 1 // 0)  # type: ignore[arg-type, return-value]
        except ZeroDivisionError as error:
            failed.append(error)

    with busy(turns):
        waits = begun(fail, turns, 3)
    waits.join(10)
    fail()
    turns.close()
    turns.close()
    by: list[threading.Thread] = []
    with busy(turns):
        turns.run(lambda: by.append(threading.current_thread()) is not None)
    assert len(failed) == 2 and by == [threading.current_thread()]


def test_closing_lets_those_that_wait_end() -> None:
    turns, order = Turns(1), list[str]()
    with busy(turns) as end:
        waits = begun(lambda: turns.run(steps("waits", 3, order)), turns, 3)
        closing = threading.Thread(target=turns.close)
        closing.start()
        time.sleep(0.05)
        end.set()
        closing.join(10)
    waits.join(10)
    assert order == ["waits"] * 3 and not closing.is_alive() and not waits.is_alive()


def test_without_threads_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python ends, or the process is a fork of the one in which they run: each caller does its own."""
    turns, order = Turns(1), list[str]()
    with busy(turns):
        monkeypatch.setattr(turns._pool, "submit", lambda *given: _ends())
        turns.run(steps("ends", 2, order))
        monkeypatch.undo()
        monkeypatch.setattr("edgerecall.runtimes.embed.turns.os.getpid", lambda: -1)
        turns.run(steps("forked", 2, order))
        monkeypatch.undo()
    assert order == ["ends", "ends", "forked", "forked"]


def test_no_new_thread_to_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    """What stays in the executor's queue then is not done twice."""
    turns, order = Turns(2), list[str]()
    end = threading.Event()
    threads = [begun(lambda: turns.run(lambda: not end.wait(10)), turns, callers) for callers in (1, 2, 3)]

    def none() -> None:
        raise RuntimeError("can't start new thread")

    def step() -> bool:
        order.append(threading.current_thread().name)
        end.set()  # so that a thread of its own looks into the queue
        time.sleep(0.1)
        return len(order) < 3

    monkeypatch.setattr(turns._pool, "_adjust_thread_count", none)
    turns.run(step)
    monkeypatch.undo()
    for thread in threads:
        thread.join(10)
    turns.close()
    assert order == [threading.current_thread().name] * 3 and turns._callers == 0


def _ends() -> None:
    raise RuntimeError("cannot schedule new futures after interpreter shutdown")
