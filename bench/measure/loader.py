"""A group's workers, loaded one after the other; ahead of their turn where a core is left for that."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Sequence

from ...runtimes.bundle.bundle import Bundle
from ...runtimes.core.cpus import usable_cpus
from ...runtimes.core.errors import EdgeRecallError
from ...runtimes.embed.replicas import other_interpreter
from ...runtimes.predictor.registry import backend
from ..schema.options import BenchOptions
from ..schema.rows import Row
from .machine import cpu_quota
from .row_runner import RowRunner

STEP_S = 0.1


class Loader:
    """Owns the rows' runners: `close` ends their workers, those that still load as soon as they have loaded."""

    def __init__(self, rows: Sequence[Row], bundle: Bundle, options: BenchOptions) -> None:
        self._rows, self._bundle, self._options = rows, bundle, options
        self._runners: list[RowRunner] = []
        self._lock = threading.Lock()  # of the two below
        self._closed = self._ended = False
        self._error: BaseException | None = None
        self._thread: threading.Thread | None = None

    def begin(self) -> None:
        """Loads in a thread, while other work goes on, unless a row takes all cores: that work would slow it down."""
        cores = min(len(usable_cpus()), cpu_quota() or len(usable_cpus()))
        if self._rows and all(row.requested_threads < cores for row in self._rows):
            # A daemon: who interrupts the run does not wait for what loads. A worker ends with this process, or as soon
            # as its runtime lets go of the interpreter.
            self._thread = threading.Thread(target=self._load, daemon=True)
            self._thread.start()
            threading.Thread(target=self._find_interpreters, daemon=True).start()

    def _find_interpreters(self) -> None:
        """Those of later rows are tried while the first row loads."""
        for row in self._rows[1:]:
            with contextlib.suppress(EdgeRecallError):  # told where the row loads
                other_interpreter(backend(row.runtime))

    def runners(self, on_step: Callable[[str, float], None]) -> list[RowRunner]:
        """Those of all rows, loaded or failed. on_step(what, share done)."""
        if self._thread is None:
            self._load(on_step)
        else:
            while self._thread.is_alive():
                self._tell(on_step)
                self._thread.join(STEP_S)
        if self._error is not None:
            raise self._error
        return self._runners

    def _load(self, on_step: Callable[[str, float], None] | None = None) -> None:
        try:
            for row in self._rows:
                if self._closed:
                    break
                if on_step is not None:
                    self._tell(on_step)
                self._runners.append(RowRunner(row, self._bundle, self._options))
        except BaseException as error:  # raised where the rows are asked for
            self._error = error
        with self._lock:
            self._ended, closed = True, self._closed
        if closed:
            self._end()

    def _tell(self, on_step: Callable[[str, float], None]) -> None:
        done = min(len(self._runners), len(self._rows) - 1)
        on_step(f"loading {self._rows[done].name}", done / len(self._rows))

    def close(self) -> None:
        """Ends the workers."""
        with self._lock:
            self._closed, ended = True, self._ended or self._thread is None
        if ended:
            self._end()

    def _end(self) -> None:
        for runner in self._runners:
            runner.close()
