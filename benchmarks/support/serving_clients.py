"""Clients of the server for its benchmarks: a server's process, requests made beforehand, and what asks by them."""

from __future__ import annotations

import base64
import contextlib
import heapq
import itertools
import json
import os
import selectors
import socket
import struct
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgerecall.serve.formats.grpc_messages import SERVICE, messages

from .rpc_client import Connection, RpcClient

CLIENTS, CONNECTIONS = 8, 64
HERE = threading.local()


@dataclass(frozen=True)
class Place:
    """A server: where, and its process."""

    host: str
    port: int
    grpc: str
    process: int


@contextmanager
def served(bundle: Path, runtime: str) -> Iterator[Place]:
    """A server of its own process."""
    command = [sys.executable, "-m", "edgerecall", "serve", bundle, "--runtime", runtime, "--port", "0", "--name", "m"]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        host, port = line.split("//")[1].split("/")[0].split(":")
        try:
            yield Place(host, int(port), line.split()[-1], process.pid)
        finally:
            process.terminate()


@dataclass(frozen=True)
class Sent:
    """One image's request as it is sent, made beforehand: clients cost the server's cores as little as they can."""

    rest: bytes
    grpc: bytes


def request_of(image: bytes, model: str = "m") -> Sent:
    """An encoded image as binary tensor; the answer's too."""
    tail = struct.pack("<I", len(image)) + image
    given = {"name": "image", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": len(tail)}}
    request = messages()["ModelInferRequest"](model_name=model)
    request.inputs.add(name="image", datatype="BYTES", shape=[1])
    request.raw_input_contents.append(tail)
    return Sent(_posted(model, given, tail), request.SerializeToString())


def json_request_of(image: bytes, model: str = "m") -> Sent:
    """An encoded image in base64, by REST alone; the answer is a binary tensor."""
    given = {"name": "image", "datatype": "BYTES", "shape": [1], "data": [base64.b64encode(image).decode()]}
    return Sent(_posted(model, given), b"")


def _posted(model: str, given: dict[str, Any], tail: bytes = b"") -> bytes:
    """A request by REST. tail: the tensor, where it is binary."""
    text = json.dumps({"inputs": [given], "parameters": {"binary_data_output": True}}).encode()
    head = f"POST /v2/models/{model}/infer HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(text) + len(tail)}\r\n"
    kind = f"Inference-Header-Content-Length: {len(text)}" if tail else "Content-Type: application/json"
    return f"{head}{kind}\r\n\r\n".encode() + text + tail


class Client(Protocol):
    """A connection that asks and is not waited for. answered: its seconds, once the answer is there."""

    socket: socket.socket

    def ask(self, request: bytes) -> None:
        """Sends it."""

    def answered(self) -> float | None:
        """Reads what has come; None where that is not all."""


class RestClient(Connection):
    """By HTTP/1.1."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__(host, port)
        self._answer, self._began = b"", 0.0

    def ask(self, request: bytes) -> None:
        """Sends it."""
        self._answer, self._began = b"", time.perf_counter()
        self.socket.sendall(request)

    def answered(self) -> float | None:
        """Reads what has come; None where that is not all."""
        self._answer += self.received()
        head, found, body = self._answer.partition(b"\r\n\r\n")
        if not found:
            return None
        if not head.startswith(b"HTTP/1.1 200 "):
            raise SystemExit(head.decode())
        lengths = [line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")]
        chunked = not lengths
        ended = body.endswith(b"\r\n0\r\n\r\n") if chunked else len(body) == int(lengths[0].split(b":")[1])
        return time.perf_counter() - self._began if ended else None


@dataclass(frozen=True)
class Way:
    """A protocol. request: of what was made beforehand."""

    connect: Callable[[Place], Client]
    request: Callable[[Sent], bytes]


WAYS = {
    "REST": Way(lambda place: RestClient(place.host, place.port), lambda sent: sent.rest),
    "gRPC": Way(lambda place: RpcClient(place.grpc, f"/{SERVICE}/ModelInfer"), lambda sent: sent.grpc),
}


def all_by(way: Way, place: Place, requests: list[Sent]) -> None:
    """As many clients at a time, in one thread: it takes less of the server's cores than threads do."""
    left = iter(requests)
    with selectors.DefaultSelector() as waiting:
        for sent in itertools.islice(left, CLIENTS):
            client = way.connect(place)
            client.ask(way.request(sent))
            waiting.register(client.socket, selectors.EVENT_READ, client)
        while waiting.get_map():
            for key, _ in waiting.select():
                if key.data.answered() is None:
                    continue
                if (sent := next(left, None)) is not None:
                    key.data.ask(way.request(sent))
                else:
                    waiting.unregister(key.fileobj)
                    key.data.socket.close()


def ask(way: Way, place: Place, sent: Sent) -> float:
    """Seconds of a request of one image, over a connection of the thread's own."""
    if getattr(HERE, "place", None) != (place, way):
        HERE.place, HERE.client = (place, way), way.connect(place)
    HERE.client.ask(way.request(sent))
    while (seconds := HERE.client.answered()) is None:
        pass
    return float(seconds)


def arrivals(rate: float, count: int, evenly: bool = False) -> NDArray[np.float64]:
    """Seconds at which so many requests are due, `rate` of them a second: at random, or evenly."""
    gaps = np.full(count, 1 / rate) if evenly else np.random.default_rng(0).exponential(1 / rate, count)
    return np.cumsum(gaps)


def queued(due: NDArray[np.float64], service: float, servers: int) -> list[float]:
    """How long each would take by so many servers that need just `service` seconds a request, in turn."""
    free = [0.0] * servers
    found: list[float] = []
    for at in due.tolist():
        ends = max(at, heapq.heappop(free)) + service
        heapq.heappush(free, ends)
        found.append(ends - at)
    return found


def paced(way: Way, place: Place, images: list[Sent], rate: float, evenly: bool = False) -> list[float]:
    """Latencies of requests that begin at random times, or evenly, `rate` of them a second, whatever the others do; in
    the order of their answers. The wait for one of so many connections is one for an answer.
    """
    found: list[float] = []
    with selectors.SelectSelector() as busy, contextlib.ExitStack() as ends:  # the others' timeouts are in whole ms
        free = deque(way.connect(place) for _ in range(CONNECTIONS))
        for client in free:
            ends.enter_context(client.socket)
            client.ask(way.request(images[0]))
            while client.answered() is None:
                pass
        left = zip(images, (time.perf_counter() + arrivals(rate, len(images), evenly)).tolist(), strict=True)
        following = next(left, None)
        while len(found) < len(images):
            wait = None
            if following is not None and free and (wait := following[1] - time.perf_counter()) <= 0:
                client = free.popleft()  # in turn: the server ends what nobody uses
                client.ask(way.request(following[0]))
                busy.register(client.socket, selectors.EVENT_READ, (client, following[1]))
                following = next(left, None)
                continue
            for key, _ in busy.select(wait):
                client, due = key.data
                if client.answered() is not None:
                    found.append(time.perf_counter() - due)
                    busy.unregister(key.fileobj)
                    free.append(client)
    return found
