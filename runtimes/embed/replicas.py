"""Opening a bundle's model in a runtime: once, or as a pool of replicas that threads share."""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from ..bundle.bundle import Bundle
from ..core.errors import InputError, RuntimeFailed
from ..predictor.backend import Backend
from ..predictor.interface import Predictor, RunOptions, predictor_class
from ..predictor.registry import backend, open_files
from ..sidecars.sidecar import SIDECARS
from ..worker.client import WorkerPredictor

CLOSED = "the model is closed: use it inside its 'with' block, or load it again"


def open_predictor(
    bundle: Bundle,
    runtime: str,
    options: RunOptions | None = None,
    worker: bool = False,
    artifact: str | None = None,
    timeout_s: float = 300.0,
    cpus: Sequence[int] = (),
) -> Predictor:
    """A bundle's model in a runtime, in this process, or in a worker process when asked or when it must be.

    timeout_s, cpus: of a worker (see `WorkerPredictor`).

    Raises RuntimeUnavailable with the remedy, RuntimeFailed, or BundleError.
    """
    described = backend(runtime)
    options = options or RunOptions()
    chosen = bundle.artifact(runtime, artifact)
    files, io = bundle.files(chosen), bundle.spec.io
    python = other_interpreter(described)
    if worker or python is not None:
        return WorkerPredictor(runtime, files, io, options, python, timeout_s, cpus)
    return open_files(runtime, files, io, options)


def other_interpreter(described: Backend) -> str | None:
    """The sidecar's interpreter for a runtime that this one cannot load; None to use this one."""
    python = SIDECARS[described.sidecar].find_python() if described.sidecar else None
    return None if python == sys.executable else python


def open_replicas(
    bundle: Bundle, runtime: str, options: RunOptions, worker: bool = False, artifact: str | None = None
) -> list[Predictor]:
    """`options.replicas` predictors that may run at the same time, over one loaded model where a runtime shares it."""
    worker = worker or (options.replicas > 1 and not predictor_class(backend(runtime)).concurrent)

    def load() -> Predictor:
        return open_predictor(bundle, runtime, options, worker, artifact)

    return replicate_all(load, options.replicas)


def replicate_all(load: Callable[[], Predictor], count: int) -> list[Predictor]:
    """One loaded predictor and its replicas, or more loaded ones where it has none."""
    found = [load()]
    try:
        while len(found) < count:
            found.append(found[0].replicate() or load())
    except BaseException:
        close_all(found)
        raise
    return found


def close_all(predictors: Sequence[Predictor]) -> None:
    """Closes each once."""
    for predictor in {id(predictor): predictor for predictor in predictors}.values():
        predictor.close()


class ReplicaPool:
    """Predictors over one model, each used by one thread at a time. Thread-safe; it owns them and closes them."""

    def __init__(self, predictors: Sequence[Predictor]) -> None:
        self.predictors = tuple(predictors)
        self._free = deque(self.predictors)
        self._lost: list[Predictor] = []
        self._changed = threading.Condition()
        self._closed = False

    def check_open(self) -> None:
        """InputError once it is closed."""
        if self._closed:
            raise InputError(CLOSED)

    @contextmanager
    def borrow(self) -> Iterator[Predictor]:
        """A predictor that nobody else uses meanwhile; waits for one, in turn. One whose process has died is not lent
        again. InputError when the pool is or gets closed, RuntimeFailed when none is left.
        """
        with self._changed:
            try:
                self._changed.wait_for(lambda: self._free or self._closed or self._all_lost)
            except BaseException:  # interrupted: another may have the turn
                self._changed.notify()
                raise
            self.check_open()
            if not self._free:
                raise RuntimeFailed("every replica of the model has died: load it again")
            predictor = self._free.popleft()
        try:
            yield predictor
        finally:
            with self._changed:
                (self._free if predictor.alive else self._lost).append(predictor)
                if self._all_lost:
                    self._changed.notify_all()
                else:
                    self._changed.notify()

    @property
    def _all_lost(self) -> bool:
        return len(self._lost) == len(self.predictors)

    def close(self) -> None:
        """Lets nobody in, waits until all are given back, and closes each once. More than once is no harm."""
        with self._changed:
            if self._closed:
                return
            self._closed = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: len(self._free) + len(self._lost) == len(self.predictors))
        close_all(self.predictors)
