"""The host's side of a worker process: a Predictor whose model lives in another interpreter."""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from ..core import errors
from ..core.errors import EdgeRecallError, RuntimeFailed, RuntimeUnavailable
from ..core.package_folders import package_folders
from ..predictor.interface import (
    Accelerator,
    ExecutionRecord,
    InnerTensor,
    ModelIO,
    Predictor,
    RunOptions,
    RuntimeInfo,
    predictor_class,
)
from ..predictor.registry import backend
from .wire import receive, send, shared_memory

# Files in the current folder must not stand in for modules.
# Pinned before anything is imported: every thread that a library starts inherits it.
PIN = """
import importlib, os, sys, types
if {cpus!r}:
    os.sched_setaffinity(0, {cpus!r})
"""
OWN_START = """
sys.path[:] = [path for path in sys.path if path]
importlib.import_module({module!r}).main()
"""
# Names the packages without their __init__ files, whose imports an older interpreter may not have.
SIDECAR_START = """
sys.path[:] = [path for path in sys.path if path]
for name, path in {packages!r}.items():
    module = types.ModuleType(name); module.__path__ = [path]; sys.modules[name] = module
importlib.import_module({module!r}).main()
"""
# Variables that change what a runtime executes behind the options' back; with VERBOSE, OpenVINO 2026.4 returns nothing.
SCRUBBED_VARIABLES = (
    "ONEDNN_DEFAULT_FPMATH_MODE",
    "DNNL_DEFAULT_FPMATH_MODE",
    "ONEDNN_VERBOSE",
    "DNNL_VERBOSE",
    "FLAGS_enable_pir_api",
    "NVIDIA_TF32_OVERRIDE",
)
SETTLE_STEP_S, SETTLE_LIMIT_S = 0.004, 1.0


def sidecar_command(python: str, module: str, *arguments: str, cpus: Sequence[int] = ()) -> list[str]:
    """Runs a module's main() in an interpreter that has nothing of ours installed; the module may use `runtimes`.

    module: `edgerecall.<folder>.<room>.<name>`, or one outside of any package, on that interpreter's path.
    """
    runtimes = Path(__file__).resolve().parents[1]
    packages = {"edgerecall": str(runtimes.parent), "edgerecall.runtimes": str(runtimes)}
    if "." in module:  # packages inside these are found by their folders
        package = ".".join(module.split(".")[:2])
        packages[package] = str(package_folders(package)[0])
    start = PIN.format(cpus=tuple(cpus)) + SIDECAR_START.format(packages=packages, module=module)
    return [python, "-s", "-c", start, *arguments]


def own_command(module: str, *arguments: str, cpus: Sequence[int] = ()) -> list[str]:
    """Runs a module's main() in this interpreter, without the current folder on its path as `python -m` has it."""
    return [sys.executable, "-c", PIN.format(cpus=tuple(cpus)) + OWN_START.format(module=module), *arguments]


def worker_command(python: str | None, cpus: Sequence[int] = ()) -> list[str]:
    """Our own interpreter imports the installed package; a sidecar gets only the folders it needs."""
    module = "edgerecall.runtimes.worker.main"
    return own_command(module, cpus=cpus) if python is None else sidecar_command(python, module, cpus=cpus)


@dataclass(frozen=True)
class Timing:
    """samples_ns: int64 `(n,)`. cpu_ns, wall_ns: CPU time of all threads, and time, over all samples.

    busy_threads: threads seen at work, or None. preemptions: times the system took a CPU away from them; None where it
    does not tell. cpus: those that the busy threads may use. output: float32 `(N, D)`, of the last inference.
    """

    samples_ns: NDArray[Any]
    cpu_ns: int
    wall_ns: int
    busy_threads: int | None
    preemptions: int | None
    cpus: tuple[int, ...]
    output: NDArray[Any]


class WorkerPredictor(Predictor):
    """A predictor in its own process, own interpreter and own thread pools. It owns the process.

    Thread-safe: calls of several threads wait for each other; `timeout_s` counts from a call's turn.

    python: interpreter to run in, None for this one. timeout_s: for any one answer; after it the worker is
    killed and RuntimeFailed raised. cpus: those it may use, all when empty. import_ms, load_ms: measured inside the
    worker.
    """

    def __init__(
        self,
        runtime: str,
        files: dict[str, str],
        io: ModelIO,
        options: RunOptions,
        python: str | None = None,
        timeout_s: float = 300.0,
        cpus: Sequence[int] = (),
    ) -> None:
        self.io, self.runtime, self.timeout_s = io, runtime, timeout_s
        described = backend(runtime)
        inside = predictor_class(described)
        self.compiles_per_batch, self.feeds_inner = inside.compiles_per_batch, inside.feeds_inner
        self._lock = threading.Lock()
        self._ended = False
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the worker
        environment = {k: v for k, v in os.environ.items() if k not in SCRUBBED_VARIABLES}
        environment["PYTHONDONTWRITEBYTECODE"] = "1"
        if python is not None:
            environment.pop("PYTHONPATH", None)
        self._shared = shared_memory()
        descriptors = (self._shared.descriptor,) if self._shared else ()
        try:
            self._process = subprocess.Popen(
                worker_command(python, cpus),
                pass_fds=descriptors,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log,
                env=environment,
            )
        except OSError as error:
            self._release()
            raise RuntimeUnavailable(f"{runtime}: its worker cannot start: {python}: {error.strerror}") from error
        try:
            io_body = {
                "input_name": io.input_name,
                "input_shape": list(io.input_shape),
                "embedding_dim": io.embedding_dim,
            }
            told = {name: getattr(described, name) for name in ("name", "predictor", "imports")}
            self.call("share", descriptors=descriptors)
            result, _ = self.call("open", backend=told, files=files, io=io_body, options=vars(options))
        except BaseException:
            self.close()
            raise
        self.info = RuntimeInfo(**result["info"])
        self.import_ms: float = result["import_ns"] / 1e6
        self.load_ms: float = result["load_ns"] / 1e6

    @property
    def alive(self) -> bool:  # type: ignore[override]
        """Whether its process still runs."""
        return not self._ended and self._process.poll() is None

    @property
    def pid(self) -> int:
        """The worker's process id."""
        return self._process.pid

    def call(
        self, command: str, arrays: tuple[NDArray[Any], ...] = (), longer_s: float = 0.0, **body: Any
    ) -> tuple[dict[str, Any], list[NDArray[Any]]]:
        """Sends one command and waits for its answer. The worker's own errors are raised here again.

        longer_s: how much longer than `timeout_s` this command may take.
        """
        ((result, outputs),) = self._calls({"command": command, **body}, arrays, self.timeout_s + longer_s)
        return result, outputs

    def _calls(
        self, body: dict[str, Any], arrays: tuple[NDArray[Any], ...], allowed_s: float, answers: int = 1
    ) -> list[tuple[dict[str, Any], list[NDArray[Any]]]]:
        """One command with so many answers, each of which may take `allowed_s`; an error is the last answer."""
        with self._lock:
            found = self._exchange(body, arrays, allowed_s, answers)
        last = found[-1][0]
        if not last["ok"]:
            kind = getattr(errors, last["type"], RuntimeFailed)
            raise kind(last["message"]) if issubclass(kind, EdgeRecallError) else RuntimeFailed(last["message"])
        return [(answer["result"], outputs) for answer, outputs in found]

    def _exchange(
        self, body: dict[str, Any], arrays: tuple[NDArray[Any], ...], allowed_s: float, answers: int
    ) -> list[tuple[dict[str, Any], list[NDArray[Any]]]]:
        assert self._process.stdin is not None
        if self._process.stdin.closed:
            raise RuntimeFailed(f"{self.runtime}: its worker is closed")
        if self._ended:
            raise RuntimeFailed(self._exit_reason())
        found: list[tuple[dict[str, Any], list[NDArray[Any]]]] = []
        deadline = time.monotonic() + allowed_s
        try:
            send(self._process.stdin, body, arrays, self._shared)  # type: ignore[arg-type]
            while len(found) < answers and (not found or found[-1][0]["ok"]):
                found.append(receive(partial(self._read, deadline=deadline, allowed_s=allowed_s)))
                deadline = time.monotonic() + allowed_s
        except (EOFError, BrokenPipeError) as error:
            raise RuntimeFailed(self._exit_reason()) from error
        except BaseException:  # interrupted: a later call must not take this one's answer for its own
            self._ended = True  # a killed process still answers for a moment, and its pipe for longer
            self._process.kill()
            raise
        return found

    def embed(self, batch: NDArray[Any]) -> NDArray[Any]:
        return self.call("embed", (batch,))[1][0]

    def embed_each(self, tensors: NDArray[Any], size: int) -> NDArray[Any]:
        """`(n, 3, H, W)` to `(n, D)` in batches of `size`: one message, and for each batch an answer in its time."""
        batches = max(-(-len(tensors) // size), 1)
        answers = self._calls({"command": "embed", "size": size}, (tensors,), self.timeout_s, batches)
        return np.concatenate([output for _, (output,) in answers])

    def time(self, batch: NDArray[Any], count: int, discard: int = 0, limit_s: float = float("inf")) -> Timing:
        """`count` inferences, after `discard` untimed ones, timed in the worker; none begins after `limit_s`."""
        limit_ns = None if limit_s == float("inf") else int(limit_s * 1e9)
        result, arrays = self.call("time", (batch,), count=count, discard=discard, limit_ns=limit_ns)
        result["cpus"] = tuple(result["cpus"])
        return Timing(samples_ns=arrays[0], output=arrays[1], **result)

    def wait_idle(self) -> None:
        """Waits, at most a second, until the worker's threads rest: some spin on for 0.2 s after an inference."""
        before = self._cpu_ns()
        end = time.monotonic() + SETTLE_LIMIT_S
        while time.monotonic() < end:
            time.sleep(SETTLE_STEP_S)
            now = self._cpu_ns()
            if now - before < SETTLE_STEP_S * 1e9 / 20:
                return
            before = now

    def _cpu_ns(self) -> int:
        """CPU time of all its threads; 0 where the system does not tell."""
        total = 0
        with contextlib.suppress(OSError, ValueError, IndexError):
            for task in Path(f"/proc/{self.pid}/task").iterdir():
                total += int((task / "schedstat").read_text().split()[0])
        return total

    def execution_record(self, batch: NDArray[Any]) -> ExecutionRecord | None:
        told, _ = self.call("executed", (batch,))
        return ExecutionRecord(**told) if told else None

    def accelerator(self, batch: NDArray[Any]) -> Accelerator | None:
        told, _ = self.call("accelerator", (batch,))
        return Accelerator(**told) if told else None

    def inner_tensors(
        self, batch: NDArray[Any], given: Mapping[str, NDArray[Any]] | None = None
    ) -> list[InnerTensor] | None:
        given = given or {}
        result, arrays = self.call("inner", (batch, *given.values()), given=list(given))
        if result["tensors"] is None:
            return None
        return [
            InnerTensor(name, kind, values, operator, tuple(inputs), tuple((role, of) for role, of in constants))
            for (name, kind, operator, inputs, constants), values in zip(result["tensors"], arrays, strict=True)
        ]

    def parameters(self) -> dict[str, NDArray[Any]] | None:
        result, arrays = self.call("parameters")
        return None if result["names"] is None else dict(zip(result["names"], arrays, strict=True))

    def load_test(
        self,
        samples: NDArray[Any],
        scenario: str,
        batch: int,
        settings: dict[str, Any],
        folder: str,
        longer_s: float,
    ) -> list[int]:
        """One scenario of MLPerf LoadGen in the worker (see `load_test.run_load_test`)."""
        body = {"scenario": scenario, "batch": batch, "settings": settings, "folder": folder}
        result, _ = self.call("load_test", (samples,), longer_s, **body)
        inference_ns: list[int] = result["inference_ns"]
        return inference_ns

    def peak_rss_mb(self) -> float | None:
        """The worker's peak resident memory so far, in MB (1e6 bytes)."""
        peak: float | None = self.call("stats")[0]["peak_rss_mb"]
        return peak

    def close(self) -> None:
        """Ends the worker; kills it when it does not go by itself."""
        process = self._process
        if not self._lock.acquire(blocking=False):  # another thread waits for an answer: it shall not
            process.kill()
            self._lock.acquire()
        try:
            self._end(process)
        finally:
            self._lock.release()

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        try:
            process.wait(timeout=0.5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self._release()

    def _release(self) -> None:
        self._log.close()
        if self._shared is not None:
            self._shared.close()
            self._shared = None

    def _read(self, count: int, deadline: float, allowed_s: float) -> bytearray:
        stream: BinaryIO = self._process.stdout  # type: ignore[assignment]
        data, view_start = bytearray(count), 0
        view = memoryview(data)
        waiting = select.poll()  # select() ends at descriptor 1023
        waiting.register(stream, select.POLLIN)
        while view_start < count:
            remaining = deadline - time.monotonic()
            # The stream is read unbuffered, so that what poll() sees is all there is.
            ready = remaining > 0 and waiting.poll(1000 * remaining)
            if not ready:
                self._process.kill()
                raise RuntimeFailed(f"{self.runtime}: no answer within {allowed_s:g} s; its worker was ended")
            got = os.readv(stream.fileno(), [view[view_start:]])
            if got == 0:
                raise EOFError
            view_start += got
        return data

    def _exit_reason(self) -> str:
        try:
            code = self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            code = None
        reason = f"was ended by signal {-code}" if code is not None and code < 0 else f"ended with exit code {code}"
        self._log.seek(0)
        lines = [line.strip() for line in self._log.read().decode(errors="replace").splitlines() if line.strip()]
        tail = f": {lines[-1][:200]}" if lines and code is not None and code >= 0 else ""
        return f"{self.runtime}: the worker process {reason}{tail}"
