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


def begun(work: Callable[[], object], turns: Turns, waiting: int) -> threading.Thread:
    """A thread, once so many wait."""
    thread = threading.Thread(target=work)
    thread.start()
    end = time.monotonic() + 10
    while len(turns._waiting) < waiting or turns._free:
        assert time.monotonic() < end
        time.sleep(0.001)
    return thread


@contextmanager
def busy(turns: Turns) -> Iterator[threading.Event]:
    """Its one turn taken, until the event or the end."""
    end = threading.Event()
    thread = begun(lambda: turns.run(lambda: not end.wait(10)), turns, 0)
    try:
        yield end
    finally:
        end.set()
        thread.join(10)


def steps(name: str, count: int, into: list[str]) -> Callable[[], bool]:
    """So many, each of which tells its name."""
    left = [count]

    def step() -> bool:
        into.append(name)
        left[0] -= 1
        return left[0] > 0

    return step


def test_whoever_comes_again_at_once_comes_last() -> None:
    turns, order = Turns(1), list[str]()
    with busy(turns) as end:
        threads = [
            begun(lambda name=name: turns.run(steps(name, 1, order)), turns, index + 1)
            for index, name in enumerate("abc")
        ]
        end.set()
        turns.run(steps("again", 1, order))
    for thread in threads:
        thread.join(10)
    assert order == ["a", "b", "c", "again"]


def test_after_each_step_those_that_wait_have_theirs() -> None:
    turns, order = Turns(1), list[str]()
    with busy(turns) as end:
        threads = [
            begun(lambda name=name, count=count: turns.run(steps(name, count, order)), turns, 1 + index)
            for index, (name, count) in enumerate((("a", 3), ("b", 1), ("c", 2)))
        ]
        end.set()
    for thread in threads:
        thread.join(10)
    assert order == ["a", "b", "c", "a", "c", "a"]


def test_a_caller_alone_gives_way_when_others_come() -> None:
    """It began without waiting; the second of its steps waits behind the other's first."""
    turns, order, come = Turns(1), list[str](), threading.Event()
    by: list[str] = []

    def first() -> bool:
        order.append("first")
        by.append(threading.current_thread().name.split("_")[0])
        come.wait(10)
        return len(by) < 2

    thread = begun(lambda: turns.run(first), turns, 0)
    other = begun(lambda: turns.run(steps("other", 1, order)), turns, 1)
    come.set()
    for one in (thread, other):
        one.join(10)
    assert order == ["first", "other", "first"] and by[1] == "edgerecall-embed" != by[0]


def interrupt() -> None:
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)


def test_an_interrupted_wait_drops_its_steps_and_keeps_nobody_out() -> None:
    turns, done = Turns(1), list[str]()
    with busy(turns):
        threading.Timer(0.2, interrupt).start()
        with pytest.raises(KeyboardInterrupt):
            turns.run(steps("dropped", 2, done))
    turns.run(steps("next", 1, done))
    turns.close()
    assert done == ["next"] and turns._free == 1 and not turns._waiting


def test_interrupted_just_as_the_turn_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there are no threads of its own, so that the turn comes to the caller itself."""
    turns, done = Turns(1), list[str]()
    turns.close()
    with busy(turns) as end:
        from edgerecall.runtimes.embed import turns as module

        honest = module.Future.result

        def late(future: object) -> object:
            end.set()
            honest(future)  # type: ignore[arg-type]
            raise KeyboardInterrupt

        monkeypatch.setattr(module.Future, "result", late)
        with pytest.raises(KeyboardInterrupt):
            turns.run(steps("dropped", 2, done))
        monkeypatch.undo()
    turns.run(steps("next", 1, done))
    assert done == ["next"] and turns._free == 1 and not turns._waiting


def test_interrupted_at_work_no_more_steps_begin() -> None:
    turns, count = Turns(1), 0

    def step() -> bool:
        nonlocal count
        count += 1
        time.sleep(0.05)  # until the caller waits: a signal just before that is seen after it, as with any lock
        if count == 1:
            interrupt()
        time.sleep(0.1)
        return count < 100

    with busy(turns) as end:
        threading.Timer(0.1, end.set).start()  # then it is for a thread of its own
        with pytest.raises(KeyboardInterrupt):
            turns.run(step)
    turns.close()
    assert count == 1 and turns._free == 1


def test_at_most_so_many_and_few_threads() -> None:
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
    assert most == 3 and turns._free == 3 and not turns._waiting
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
        waits = begun(fail, turns, 1)
    waits.join(10)
    fail()
    turns.close()
    turns.close()
    by: list[threading.Thread] = []
    turns.run(lambda: by.append(threading.current_thread()) is not None)
    assert len(failed) == 2 and by == [threading.current_thread()] and turns._free == 1


def test_a_failure_after_a_good_step() -> None:
    """By the caller itself, and by a thread of its own: it ends there."""
    turns, left = Turns(1), [3]

    def step() -> bool:
        left[0] -= 1
        if left[0] < 1:
            raise ValueError
        return True

    with pytest.raises(ValueError):
        turns.run(step)
    left[0] = 3
    with busy(turns) as end:
        threading.Timer(0.1, end.set).start()
        with pytest.raises(ValueError):
            turns.run(step)
    turns.close()
    assert left == [0] and turns._free == 1 and not turns._waiting


def test_closing_lets_those_that_wait_end() -> None:
    turns, order = Turns(1), list[str]()
    with busy(turns) as end:
        waits = begun(lambda: turns.run(steps("waits", 3, order)), turns, 1)
        turns.close()
        end.set()
        waits.join(10)
    assert order == ["waits"] * 3 and not waits.is_alive() and turns._free == 1


@pytest.mark.parametrize("why", ["ends", "forked", "no thread"])
def test_without_threads_of_its_own(monkeypatch: pytest.MonkeyPatch, why: str) -> None:
    """Python ends, the process is a fork of the one in which they run, or no more can be had: each caller does its own,
    once.
    """
    turns, by = Turns(1), list[threading.Thread]()

    def none(*given: object) -> None:
        raise RuntimeError("can't start new thread")

    def step() -> bool:
        by.append(threading.current_thread())
        time.sleep(0.1)
        return len(by) < 3

    with busy(turns) as end:
        waits = begun(lambda: turns.run(step), turns, 1)
        if why == "forked":
            monkeypatch.setattr("edgerecall.runtimes.embed.turns.os.getpid", lambda: -1)
        else:
            monkeypatch.setattr(turns._pool, "submit" if why == "ends" else "_adjust_thread_count", none)
        end.set()
        time.sleep(0.05)
        monkeypatch.undo()
        turns._pool.submit(int)  # a thread that looks into the executor's queue
        waits.join(10)
    assert by == [waits] * 3 and turns._free == 1 and not turns._waiting
