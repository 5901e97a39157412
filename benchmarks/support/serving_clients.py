"""Clients of the server for its benchmarks: a server's process, requests made beforehand, and what asks by them."""

from __future__ import annotations

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
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

CLIENTS = 8
HERE = threading.local()


@dataclass(frozen=True)
class Place:
    """A server: where, and its process."""

    host: str
    port: int
    grpc: str
    process: int


Ask = Callable[[Place, "Sent"], float]


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


def request_of(image: bytes) -> Sent:
    """An encoded image as binary tensor; the answer's too."""
    from edgerecall.serve.formats.grpc_messages import messages

    tail = struct.pack("<I", len(image)) + image
    given = {"name": "image", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": len(tail)}}
    text = json.dumps({"inputs": [given], "parameters": {"binary_data_output": True}}).encode()
    head = (
        f"POST /v2/models/m/infer HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(text) + len(tail)}\r\n"
        f"Inference-Header-Content-Length: {len(text)}\r\n\r\n"
    )
    request = messages()["ModelInferRequest"](model_name="m")
    request.inputs.add(name="image", datatype="BYTES", shape=[1])
    request.raw_input_contents.append(tail)
    return Sent(head.encode() + text + tail, request.SerializeToString())


class Client:
    """A connection that asks and is not waited for. answered: its seconds, once the answer is there."""

    def __init__(self, place: Place) -> None:
        self.socket = socket.create_connection((place.host, place.port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._answer, self._began = b"", 0.0

    def ask(self, request: Sent) -> None:
        """Sends it."""
        self._answer, self._began = b"", time.perf_counter()
        self.socket.sendall(request.rest)

    def answered(self) -> float | None:
        """Reads what has come; None where that is not all."""
        self._answer += received(self.socket)
        head, found, body = self._answer.partition(b"\r\n\r\n")
        if not found:
            return None
        if not head.startswith(b"HTTP/1.1 200 "):
            raise SystemExit(head.decode())
        lengths = [line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")]
        return time.perf_counter() - self._began if len(body) == int(lengths[0].split(b":")[1]) else None


def all_by_rest(place: Place, requests: list[Sent]) -> None:
    """As many clients at a time, in one thread: it takes less of the server's cores than threads do."""
    left = iter(requests)
    with selectors.DefaultSelector() as waiting:
        for request in itertools.islice(left, CLIENTS):
            client = Client(place)
            client.ask(request)
            waiting.register(client.socket, selectors.EVENT_READ, client)
        while waiting.get_map():
            for key, _ in waiting.select():
                if key.data.answered() is None:
                    continue
                if (request := next(left, None)) is not None:
                    key.data.ask(request)
                else:
                    waiting.unregister(key.fileobj)
                    key.data.socket.close()


def by_rest(place: Place, request: Sent) -> float:
    """Seconds of a request of one image, over a connection of the thread's own."""
    if getattr(HERE, "rest", None) != place:
        HERE.rest, HERE.client = place, Client(place)
    HERE.client.ask(request)
    while (seconds := HERE.client.answered()) is None:
        pass
    return float(seconds)


def received(connection: socket.socket) -> bytes:
    """What has come next."""
    part = connection.recv(1 << 16)
    if not part:
        raise SystemExit("the server closed the connection")
    return part


def by_grpc(place: Place, request: Sent) -> float:
    """The same by gRPC, over a channel of its own."""
    import grpc

    from edgerecall.serve.formats.grpc_messages import SERVICE

    if getattr(HERE, "grpc", None) != place:
        options = [("grpc.use_local_subchannel_pool", 1)]
        channel = grpc.insecure_channel(place.grpc, options)
        HERE.grpc, HERE.call = place, channel.unary_unary(f"/{SERVICE}/ModelInfer")
    began = time.perf_counter()
    HERE.call(request.grpc)
    return time.perf_counter() - began


def paced(ask: Ask, place: Place, images: list[Sent], rate: float) -> list[float]:
    """Latencies of requests that begin at random times, `rate` of them a second, whatever the others do."""

    def late(image: Sent, at: float) -> float:
        ask(place, image)
        return time.perf_counter() - at  # the wait for a thread is one for an answer

    with ThreadPoolExecutor(8 * CLIENTS) as pool:
        all_there = threading.Barrier(8 * CLIENTS)  # each has its connection before
        list(pool.map(lambda _: (all_there.wait(), ask(place, images[0])), range(8 * CLIENTS)))
        due = time.perf_counter() + np.cumsum(np.random.default_rng(0).exponential(1 / rate, len(images)))
        jobs = []
        for image, at in zip(images, due.tolist(), strict=True):
            time.sleep(max(at - time.perf_counter(), 0))
            jobs.append(pool.submit(late, image, at))
        return [job.result() for job in jobs]
