"""Turns go by who came first, and none is lost."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from edgerecall.runtimes.embed.turns import Turns


def begun(work: Callable[[], None], turns: Turns, waiting: int) -> threading.Thread:
    """A thread, once so many wait."""
    thread = threading.Thread(target=work)
    thread.start()
    end = time.monotonic() + 10
    while len(turns._waiting) < waiting:
        assert time.monotonic() < end
        time.sleep(0.001)
    return thread


def test_whoever_comes_again_at_once_comes_last() -> None:
    turns, order = Turns(1), list[str]()

    def once(name: str) -> None:
        with turns.turn():
            order.append(name)

    with turns.turn():
        threads = [begun(lambda name=name: once(name), turns, index + 1) for index, name in enumerate("abc")]
    once("again")
    for thread in threads:
        thread.join(10)
    assert order == ["a", "b", "c", "again"]


@pytest.mark.parametrize("comes", [False, True])
def test_an_interrupted_wait_keeps_nobody_out(monkeypatch: pytest.MonkeyPatch, comes: bool) -> None:
    """Before its turn, and just as it comes."""
    turns = Turns(1)

    class Interrupted:
        """A lock whose second taker is interrupted."""

        taken = 0

        def acquire(self) -> bool:
            self.taken += 1
            if self.taken == 2:
                if comes:
                    turns._give()
                raise KeyboardInterrupt
            return True

        def release(self) -> None:
            pass

    turns._take()
    monkeypatch.setattr("edgerecall.runtimes.embed.turns.threading.Lock", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        turns._take()
    monkeypatch.undo()
    if not comes:
        turns._give()
    assert turns._free == 1 and not turns._waiting


def test_at_most_so_many() -> None:
    turns, lock, now, most = Turns(3), threading.Lock(), 0, 0

    def work() -> None:
        nonlocal now, most
        for _ in range(50):
            with turns.turn():
                with lock:
                    now += 1
                    most = max(most, now)
                time.sleep(0.0002)
                with lock:
                    now -= 1

    threads = [threading.Thread(target=work) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert most == 3 and turns._free == 3 and not turns._waiting
