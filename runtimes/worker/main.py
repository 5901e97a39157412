"""The worker process: holds one predictor, answers over its standard input and output, times inside itself.

Runs in the sidecar too (see `predictor`).
"""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from ..core.errors import EdgeRecallError
from ..core.text import one_line
from ..predictor.backend import Backend
from ..predictor.interface import ModelIO, Predictor, RunOptions, open_backend
from .load_test import run_load_test
from .wire import SharedMemory, reader, receive, send

WATCH_INTERVAL_S = 1.0
INNER_FIELDS = ("name", "kind", "operator", "inputs", "constants")  # of an InnerTensor, beside its values


def private_streams() -> tuple[BinaryIO, BinaryIO]:
    """The pipe to the host; what the runtimes print to file descriptor 1 goes to standard error instead."""
    requests = os.fdopen(os.dup(0), "rb")
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return requests, answers


def die_with_parent() -> None:
    """Ctrl-C is the host's to handle, and this process must not outlive it, not even in mid-inference."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(WATCH_INTERVAL_S)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def memory_mb(field: str) -> float | None:
    """`VmHWM` (peak) or `VmRSS` in MB (1e6 bytes); unlike ru_maxrss it does not start at the parent's size."""
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(field + ":"):
                return int(line.split()[1]) * 1024 / 1e6
    except OSError:
        pass
    return None


def thread_times() -> dict[str, int]:
    """Nanoseconds on a CPU of every thread of this process, by thread id; empty where the system does not tell."""
    times = {}
    with contextlib.suppress(OSError, ValueError, IndexError):
        for task in Path("/proc/self/task").iterdir():
            times[task.name] = int((task / "schedstat").read_text().split()[0])
    return times


def allowed_cpus(threads: list[str]) -> list[int]:
    """CPUs that any of these threads of this process may run on."""
    cpus: set[int] = set()
    with contextlib.suppress(OSError, AttributeError):
        for thread in threads:
            cpus |= os.sched_getaffinity(int(thread))
    return sorted(cpus)


def preemptions() -> int | None:
    """How often the system took a CPU away from this process; None where it does not tell."""
    with contextlib.suppress(ImportError):  # not on every system
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw
    return None


def timed_runs(
    predictor: Predictor, batch: NDArray[Any], count: int, discard: int, limit_ns: int | None
) -> tuple[dict[str, Any], list[NDArray[Any]]]:
    """The fields of `worker.Timing`. A thread is busy that ran for at least a twentieth of the time."""
    for _ in range(discard):
        predictor.embed(batch)
    samples, output = np.empty(count, dtype=np.int64), np.empty(0, dtype=np.float32)
    before, taken_before = thread_times(), preemptions()
    cpu_start, wall_start = time.process_time_ns(), time.perf_counter_ns()
    done = 0
    for index in range(count):
        start = time.perf_counter_ns()
        output = predictor.embed(batch)
        end = time.perf_counter_ns()
        samples[index] = end - start
        done = index + 1
        if limit_ns is not None and end - wall_start > limit_ns:
            break
    cpu_ns, wall_ns = time.process_time_ns() - cpu_start, time.perf_counter_ns() - wall_start
    after, taken = thread_times(), preemptions()
    busy = [task for task in after if after[task] - before.get(task, 0) > wall_ns / 20]
    seen = {
        "cpu_ns": cpu_ns,
        "wall_ns": wall_ns,
        "busy_threads": len(busy) or None,
        "preemptions": None if taken is None or taken_before is None else taken - taken_before,
        "cpus": allowed_cpus(busy),
    }
    return seen, [samples[:done], output]


class Worker:
    """The commands: share, open, embed, time, load_test, executed, accelerator, inner, parameters, stats."""

    def __init__(self) -> None:
        self.predictor: Predictor | None = None
        self.shared: SharedMemory | None = None

    def open(self, body: dict[str, Any]) -> dict[str, Any]:
        io = ModelIO(body["io"]["input_name"], tuple(body["io"]["input_shape"]), body["io"]["embedding_dim"])
        start = time.perf_counter_ns()
        backend = Backend(**body["backend"])
        with contextlib.suppress(ImportError):  # the predictor itself says what is missing
            importlib.import_module(backend.imports or "json")
        import_ns = time.perf_counter_ns() - start
        start = time.perf_counter_ns()
        self.predictor = open_backend(backend, body["files"], io, RunOptions(**body["options"]))
        load_ns = time.perf_counter_ns() - start
        return {"info": asdict(self.predictor.info), "import_ns": import_ns, "load_ns": load_ns}

    def answers(
        self, body: dict[str, Any], arrays: list[NDArray[Any]]
    ) -> Iterator[tuple[dict[str, Any], list[NDArray[Any]]]]:
        """One; of images to embed in batches of a `size` one for each batch."""
        if "size" not in body:
            yield self.answer(body, arrays)
            return
        (images,), size = arrays, body["size"]
        for start in range(0, max(len(images), 1), size):
            yield self.answer(body, [images[start : start + size]])

    def answer(self, body: dict[str, Any], arrays: list[NDArray[Any]]) -> tuple[dict[str, Any], list[NDArray[Any]]]:
        command = body["command"]
        if command == "open":
            return self.open(body), []
        if command == "share":
            self.shared = SharedMemory(*body["descriptors"]) if body["descriptors"] else None
            return {}, []
        if command == "stats":
            return {"peak_rss_mb": memory_mb("VmHWM"), "rss_mb": memory_mb("VmRSS")}, []
        if self.predictor is None:
            raise EdgeRecallError("no model is open")
        if command == "embed":
            return {}, [self.predictor.embed(arrays[0])]
        if command == "time":
            return timed_runs(self.predictor, arrays[0], body["count"], body["discard"], body["limit_ns"])
        if command == "load_test":
            settings = (body["scenario"], body["batch"], body["settings"], body["folder"])
            return {"inference_ns": run_load_test(self.predictor, arrays[0], *settings)}, []
        if command == "executed":
            told = self.predictor.execution_record(arrays[0])
            return asdict(told) if told else {}, []
        if command == "accelerator":
            gpu = self.predictor.accelerator(arrays[0])
            return asdict(gpu) if gpu else {}, []
        if command == "inner":
            given = dict(zip(body["given"], arrays[1:]))  # noqa: B905 - Python 3.8 has no strict
            inner = self.predictor.inner_tensors(arrays[0], given)
            shown = None if inner is None else [[getattr(tensor, field) for field in INNER_FIELDS] for tensor in inner]
            return {"tensors": shown}, [np.asarray(tensor.values, dtype=np.float32) for tensor in inner or ()]
        if command == "parameters":
            weights = self.predictor.parameters()
            return {"names": None if weights is None else list(weights)}, list((weights or {}).values())
        raise EdgeRecallError(f"unknown command '{command}'")


def main() -> None:
    """Serves until the host closes the pipe."""
    die_with_parent()
    requests, answers = private_streams()
    worker, read_exactly = Worker(), reader(requests)
    while True:
        try:
            body, arrays = receive(read_exactly, worker.shared)
        except EOFError:
            break
        try:
            for result, outputs in worker.answers(body, arrays):
                send(answers, {"ok": True, "result": result}, outputs)
        except EdgeRecallError as error:
            send(answers, {"ok": False, "type": type(error).__name__, "message": str(error)})
        except Exception as error:  # the host turns it into a row with its reason
            text = f"{type(error).__name__}: {one_line(error)}"
            send(answers, {"ok": False, "type": "RuntimeFailed", "message": text})
    os._exit(0)  # some runtimes hang or crash in their exit handlers
