"""KServe's server beside ours, each asked for the same images in the same JSON by the same clients, in turns."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import statistics
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from .serving_clients import CLIENTS, WAYS, Place, all_by, json_request_of

MODEL = Path(__file__).parent / "kserve_model.py"
START_S = 60


@contextlib.contextmanager
def kserve(python: str, onnx: Path, processes: int) -> Iterator[Place]:
    """KServe's server, with so many processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [python, MODEL, "--onnx", onnx, "--http_port", str(port), "--workers", str(processes)]
    quiet = subprocess.DEVNULL
    with subprocess.Popen(command, stdout=quiet, stderr=quiet, start_new_session=True) as process:
        try:
            deadline = time.monotonic() + START_S
            while not ready(port):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit(f"{python} {MODEL.name}: does not serve: run it by hand to see why")
                time.sleep(0.2)
            yield Place("127.0.0.1", port, "", process.pid)
        finally:
            with contextlib.suppress(ProcessLookupError):  # it ended by itself
                os.killpg(process.pid, signal.SIGKILL)  # it leaves its processes behind when it is asked to end


def ready(port: int) -> bool:
    """Whether the model answers for itself."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/v2/models/m/ready")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def beside_kserve(python: str, onnx: Path, ours: Place, files: Sequence[bytes], processes: int, rounds: int) -> None:
    """Prints images per second of both, medians of interleaved rounds."""
    images = [json_request_of(file) for file in files]
    with kserve(python, onnx, processes) as theirs:
        rates: dict[str, list[float]] = {"KServe": [], "this server": []}
        for _ in range(rounds + 1):
            for name, place in (("KServe", theirs), ("this server", ours)):
                began = time.perf_counter()
                all_by(WAYS["REST"], place, images)
                rates[name].append(len(images) / (time.perf_counter() - began))
    told = ", ".join(f"{name} {statistics.median(found[1:]):.1f} images/s" for name, found in rates.items())
    print(f"  base64 in JSON, {CLIENTS} clients, {processes} processes: {told}", flush=True)
