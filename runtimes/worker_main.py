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
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from .errors import EdgeRecallError
from .predictor import ModelIO, Predictor, RunOptions, one_line, open_files, predictor_class
from .wire import reader, receive, send

WATCH_INTERVAL_S = 1.0


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


def timed_runs(predictor: Predictor, batch: NDArray[Any], count: int) -> tuple[dict[str, Any], list[NDArray[Any]]]:
    """`count` inferences of one batch: nanoseconds each, the CPU time that all threads used, and how many threads
    worked (ran for at least a twentieth of the time).
    """
    samples = np.empty(count, dtype=np.int64)
    before = thread_times()
    cpu_start, wall_start = time.process_time_ns(), time.perf_counter_ns()
    for index in range(count):
        start = time.perf_counter_ns()
        predictor.embed(batch)
        samples[index] = time.perf_counter_ns() - start
    cpu_ns, wall_ns = time.process_time_ns() - cpu_start, time.perf_counter_ns() - wall_start
    after = thread_times()
    busy = sum(after[task] - before.get(task, 0) > wall_ns / 20 for task in after)
    return {"cpu_ns": cpu_ns, "wall_ns": wall_ns, "busy_threads": busy or None}, [samples]


class Worker:
    """The commands: open, embed, time, stats."""

    def __init__(self) -> None:
        self.predictor: Predictor | None = None

    def open(self, body: dict[str, Any]) -> dict[str, Any]:
        io = ModelIO(body["io"]["input_name"], tuple(body["io"]["input_shape"]), body["io"]["embedding_dim"])
        start = time.perf_counter_ns()
        package = predictor_class(body["runtime"]).package
        with contextlib.suppress(ImportError):  # the predictor itself says what is missing
            importlib.import_module(package or "json")
        import_ns = time.perf_counter_ns() - start
        start = time.perf_counter_ns()
        self.predictor = open_files(body["runtime"], body["files"], io, RunOptions(**body["options"]))
        load_ns = time.perf_counter_ns() - start
        return {"info": asdict(self.predictor.info), "import_ns": import_ns, "load_ns": load_ns}

    def answer(self, body: dict[str, Any], arrays: list[NDArray[Any]]) -> tuple[dict[str, Any], list[NDArray[Any]]]:
        command = body["command"]
        if command == "open":
            return self.open(body), []
        if command == "stats":
            return {"peak_rss_mb": memory_mb("VmHWM"), "rss_mb": memory_mb("VmRSS")}, []
        if self.predictor is None:
            raise EdgeRecallError("no model is open")
        if command == "embed":
            return {}, [self.predictor.embed(arrays[0])]
        if command == "time":
            return timed_runs(self.predictor, arrays[0], body["count"])
        raise EdgeRecallError(f"unknown command '{command}'")


def main() -> None:
    """Serves until the host closes the pipe."""
    die_with_parent()
    requests, answers = private_streams()
    worker, read_exactly = Worker(), reader(requests)
    while True:
        try:
            body, arrays = receive(read_exactly)
        except EOFError:
            break
        try:
            result, outputs = worker.answer(body, arrays)
            send(answers, {"ok": True, "result": result}, outputs)
        except EdgeRecallError as error:
            send(answers, {"ok": False, "type": type(error).__name__, "message": str(error)})
        except Exception as error:  # the host turns it into a row with its reason
            text = f"{type(error).__name__}: {one_line(error)}"
            send(answers, {"ok": False, "type": "RuntimeFailed", "message": text})
    os._exit(0)  # some runtimes hang or crash in their exit handlers
