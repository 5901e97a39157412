"""Rows at work at once: freed of their CPUs meanwhile, and each failing alone."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from edgerecall.bench.measure.side_by_side import SideBySide
from edgerecall.runtimes.core.cpus import usable_cpus


@dataclass
class Runner:
    """What is used of a RowRunner, with a process that waits as its worker."""

    pid: int
    cpus: tuple[int, ...]
    threads: int = 1
    failed: list[BaseException] = field(default_factory=list)
    alive: bool = True

    @property
    def row(self) -> Any:
        return SimpleNamespace(requested_threads=self.threads)

    @property
    def worker(self) -> Any:
        return SimpleNamespace(pid=self.pid)

    def attempt(self, action: Any) -> None:
        try:
            action()
        except ValueError as error:
            self.failed.append(error)
            self.alive = False

    def close(self) -> None:
        self.alive = False


@pytest.fixture
def runners() -> Iterator[list[Any]]:
    cpu = max(usable_cpus())
    command = [sys.executable, "-c", f"import os; os.sched_setaffinity(0, [{cpu}]); print(flush=True); input()"]
    started = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(3)]
    for one in started:
        assert one.stdout is not None
        one.stdout.readline()
    yield [Runner(one.pid, (cpu,)) for one in started]
    for one in started:
        one.communicate(b"\n")


OPTIONS: Any = SimpleNamespace(cpus=())


def test_freed_and_bound_again(runners: list[Any]) -> None:
    runners[2].cpus = ()  # not pinned: left as it is
    with SideBySide(runners, OPTIONS) as rows:
        seen = {}
        rows.each(lambda one: seen.setdefault(one.pid, os.sched_getaffinity(one.pid)))
        assert [seen[one.pid] for one in runners[:2]] == [set(usable_cpus())] * 2
        assert seen[runners[2].pid] == {max(usable_cpus())}
    assert all(os.sched_getaffinity(one.pid) == {max(usable_cpus())} for one in runners)


@pytest.mark.skipif(len(usable_cpus()) < 2, reason="one CPU: one row at a time")
def test_at_the_same_time_unless_threads_leave_no_room(runners: list[Any]) -> None:
    meeting = threading.Barrier(2)
    with SideBySide(runners[:2], OPTIONS) as rows:
        rows.each(lambda one: meeting.wait(20))
    alone = threading.Barrier(2)

    def wait_for_another(one: Any) -> None:
        with pytest.raises(threading.BrokenBarrierError):
            alone.wait(0.2)
        alone.reset()

    runners[0].threads = len(usable_cpus())
    with SideBySide(runners, OPTIONS) as rows:
        rows.each(wait_for_another)


def test_one_fails_alone(runners: list[Any]) -> None:
    def work(one: Any) -> None:
        if one is runners[1]:
            raise ValueError("broken")

    done = []
    with SideBySide(runners, OPTIONS) as rows:
        rows.each(work)
        rows.each(done.append)
    assert [len(one.failed) for one in runners] == [0, 1, 0]
    assert {one.pid for one in done} == {runners[0].pid, runners[2].pid}


def test_what_interrupts_ends_the_workers(runners: list[Any]) -> None:
    with pytest.raises(KeyboardInterrupt), SideBySide(runners, OPTIONS):
        raise KeyboardInterrupt
    assert not any(one.alive for one in runners)
