"""Rows at work at the same time, on all CPUs, while nothing is timed: what they compute does not hang on that."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import TracebackType

from ...runtimes.core.cpus import usable_cpus
from ..schema.options import BenchOptions
from .machine import cpu_quota
from .row_runner import RowRunner


class SideBySide:
    """As many rows at once as their threads leave room for. Pinned workers may use every CPU until the block ends."""

    def __init__(self, runners: Sequence[RowRunner], options: BenchOptions) -> None:
        self.runners = runners
        self._cpus = options.cpus or usable_cpus()
        cores = min(len(self._cpus), cpu_quota() or len(self._cpus))
        threads = max((runner.row.requested_threads for runner in runners), default=1)
        self._pool = ThreadPoolExecutor(max(int(cores // threads), 1))
        self._bound: dict[int, set[int]] = {}  # of each thread, by its id

    def __enter__(self) -> SideBySide:
        for runner in self.runners:
            for task in _tasks(runner) if runner.cpus else ():
                with contextlib.suppress(OSError):  # it has ended
                    self._bound[task] = os.sched_getaffinity(task)
                    os.sched_setaffinity(task, self._cpus)
        return self

    def each(self, action: Callable[[RowRunner], object], runners: Sequence[RowRunner] | None = None) -> None:
        """Runs an action of every row that is alive; one that fails ends its row alone."""
        alive = [runner for runner in (self.runners if runners is None else runners) if runner.alive]
        for done in [self._pool.submit(runner.attempt, partial(action, runner)) for runner in alive]:
            done.result()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            for runner in self.runners:
                runner.close()  # what waits for an answer gets none, and ends
        self._pool.shutdown(cancel_futures=True)
        for runner in self.runners:
            for task in _tasks(runner) if runner.cpus else ():
                with contextlib.suppress(OSError):
                    os.sched_setaffinity(task, self._bound.get(task, set(runner.cpus)))


def _tasks(runner: RowRunner) -> Iterator[int]:
    """Ids of its worker's threads."""
    if runner.worker is not None:
        with contextlib.suppress(OSError):
            yield from [int(task.name) for task in Path(f"/proc/{runner.worker.pid}/task").iterdir()]
