"""A server of the fake bundle, as a process."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import struct
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgerecall.serve.formats.rest_format import HEADER_LENGTH

GOLDEN = 4  # images of a fake bundle: with `awake` so many, those that a server looks at take no time


def image_input(*images: bytes) -> tuple[dict[str, Any], bytes]:
    """Encoded images as an input whose elements stand behind the JSON."""
    tail = b"".join(struct.pack("<I", len(image)) + image for image in images)
    told = {"name": "image", "datatype": "BYTES", "shape": [len(images)], "parameters": {"binary_data_size": len(tail)}}
    return told, tail


@dataclass
class Client:
    """Asks one server."""

    url: str
    grpc: str
    process: subprocess.Popen[bytes]
    log: Path

    def get(self, path: str, body: bytes | None = None, **headers: str) -> tuple[int, bytes, dict[str, str]]:
        """Status, body and headers (in lower case) of an answer; with a body, of a POST."""
        request = urllib.request.Request(self.url + path, body, {k.replace("_", "-"): v for k, v in headers.items()})
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, answer.read(), {k.lower(): v for k, v in answer.headers.items()}
        except urllib.error.HTTPError as error:
            return error.code, error.read(), {k.lower(): v for k, v in error.headers.items()}

    def infer(self, request: dict[str, Any], tail: bytes = b"", **headers: str) -> tuple[int, dict[str, Any], bytes]:
        """Status, JSON and what is behind it. tail: tensors as bytes."""
        code, answer, _, behind = self.infer_with_headers(request, tail, **headers)
        return code, answer, behind

    def infer_with_headers(
        self, request: dict[str, Any], tail: bytes = b"", **headers: str
    ) -> tuple[int, dict[str, Any], dict[str, str], bytes]:
        """Status, JSON, headers and what is behind it."""
        text = json.dumps(request).encode()
        if tail:
            headers[HEADER_LENGTH.decode()] = str(len(text))
        code, body, told = self.get("/v2/models/bundle/infer", text + tail, **headers)
        length = int(told.get(HEADER_LENGTH.decode(), len(body)))
        return code, json.loads(body[:length]), told, body[length:]

    def metric(self, line: str) -> bool:
        """Whether the metrics have a line."""
        return f"\n{line}\n" in self.get("/metrics")[1].decode()

    def wait_for(self, line: str, seconds: float = 30.0) -> None:
        """Until the metrics have a line."""
        end = time.monotonic() + seconds
        while not self.metric(line):
            assert time.monotonic() < end, f"{line}, in:\n{self.get('/metrics')[1].decode()}"
            time.sleep(0.05)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Asks it to end; its exit code."""
        self.process.send_signal(number)
        return self.process.wait(60)


@contextlib.contextmanager
def serving(folder: Path, *arguments: object) -> Iterator[Client]:
    """`edgerecall serve bundle` in a folder."""
    command = [sys.executable, "-m", "edgerecall", "serve", "bundle", "--runtime", "fake", "--port", "0"]
    log = folder / "server.log"
    with log.open("w") as stream:
        process = subprocess.Popen(
            [*command, *map(str, arguments)], stdout=stream, stderr=stream, cwd=folder,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )  # fmt: skip
    try:
        end = time.monotonic() + 60
        while "gRPC at " not in log.read_text() or not log.read_text().endswith("\n"):
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(log.read_text())
            time.sleep(0.05)
        where = log.read_text().split(" at ")
        yield Client(where[1].split("/v2/")[0], where[2].split()[0], process, log)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(30)
