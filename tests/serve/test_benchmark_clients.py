"""The benchmark's clients ask as real ones do, and notice what is no answer."""

from __future__ import annotations

import importlib
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from served import Client

import edgerecall as package
from edgerecall.serve.formats.grpc_messages import messages


@pytest.fixture
def clients_module(root: Path) -> Iterator[ModuleType]:
    """`benchmarks/support/serving_clients.py`."""
    sys.path.insert(0, str(root / "benchmarks"))
    try:
        yield importlib.import_module("support.serving_clients")
    finally:
        sys.path.remove(str(root / "benchmarks"))
        for name in [name for name in sys.modules if name == "support" or name.startswith("support.")]:
            del sys.modules[name]


def test_they_get_the_embedding(shared_server: Client, data: Path, clients_module: ModuleType) -> None:
    clients = clients_module
    host, port = shared_server.url.removeprefix("http://").split(":")
    place = clients.Place(host, int(port), shared_server.grpc, 0)
    image = next(iter(sorted(data.glob("*_final/*.JPG"))))
    with package.load(Path(shared_server.log).parent / "bundle", runtime="fake", batch_size=1) as model:
        expected = model.embed_images(image)
    sent = clients.request_of(image.read_bytes(), "bundle")
    connection = clients.WAYS["gRPC"].connect(place)
    for _ in range(5):  # one connection, several calls
        connection.ask(sent.grpc)
        while connection.answered() is None:
            pass
        (raw,) = messages()["ModelInferResponse"].FromString(connection.answer).raw_output_contents
        np.testing.assert_array_equal(np.frombuffer(raw, "<f4"), expected[0])
    for way in clients.WAYS.values():
        clients.all_by(way, place, [sent] * 20)
        assert 0 < clients.ask(way, place, sent) < 60


def test_json_and_an_answer_in_chunks(shared_server: Client, data: Path, clients_module: ModuleType) -> None:
    """Ours has a length; KServe's comes in chunks, and has not ended before the last one, which is empty."""
    clients = clients_module
    host, port = shared_server.url.removeprefix("http://").split(":")
    image = next(iter(sorted(data.glob("*_final/*.JPG"))))
    clients.all_by(
        clients.WAYS["REST"],
        clients.Place(host, int(port), "", 0),
        [clients.json_request_of(image.read_bytes(), "bundle")] * 20,
    )
    with socket.create_server(("127.0.0.1", 0)) as listening:
        client = clients.RestClient(*listening.getsockname())
        far, _ = listening.accept()
        with far, client.socket:
            client.ask(b"x")
            head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
            for part in (head, b"5\r\nabcde\r\n", b"1\r\n0\r\n"):
                far.sendall(part)
                assert client.answered() is None
            far.sendall(b"0\r\n\r\n")
            assert client.answered() is not None


@pytest.mark.parametrize("evenly", [True, False])
def test_requests_begin_when_they_are_due(clients_module: ModuleType, evenly: bool) -> None:
    """By connections in turn, and none is forgotten where more are due than there are connections."""
    clients, began, used = clients_module, list[float](), list[object]()

    class Echo:
        """A connection to itself: what it sends has come a little later."""

        def __init__(self, place: object) -> None:
            self.socket, self.far = socket.socketpair()

        def ask(self, request: bytes) -> None:
            began.append(time.perf_counter())
            used.append(self)
            threading.Timer(0.01, self.far.sendall, (b"x",)).start()

        def answered(self) -> float | None:
            return time.perf_counter() - began[-1] if self.socket.recv(1) else None

    way = clients.Way(Echo, lambda sent: sent.rest)
    image = clients.Sent(b"", b"")
    found = clients.paced(way, clients.Place("", 0, "", 0), [image] * 50, 50, evenly)
    assert len(found) == 50 and min(found) > 0.005 and sorted(found)[25] < 0.1
    warm = clients.CONNECTIONS
    assert used[warm : warm + 50] == used[:50]
    gaps = np.diff(began[warm:])
    assert 0.8 < began[-1] - began[warm] < 3
    assert bool(np.std(gaps) < 0.012) is evenly  # at random times .02
    assert len(clients.paced(way, clients.Place("", 0, "", 0), [image] * 200, 1e6, evenly)) == 200


def test_a_queue_alone(clients_module: ModuleType) -> None:
    """Two servers at half load: Erlang's C says that a third of the requests wait; two at a time never do."""
    clients = clients_module
    assert clients.queued(np.arange(0, 100, 0.5), 1.0, 2) == [1.0] * 200
    assert clients.queued(np.zeros(4), 1.0, 2) == [1.0, 1.0, 2.0, 2.0]
    found = clients.queued(clients.arrivals(1.0, 200_000), 1.0, 2)
    assert 0.2 < np.mean(np.array(found) > 1) < 1 / 3 and 2.5 < np.percentile(found, 99) < 2.65


def test_a_large_message_waits_for_its_window(shared_server: Client, clients_module: ModuleType) -> None:
    """It is refused here, after it was read: no image is in it."""
    clients = clients_module
    connection = clients.WAYS["gRPC"].connect(clients.Place("", 0, shared_server.grpc, 0))
    connection.ask(clients.request_of(bytes(3 << 20), "bundle").grpc)
    with pytest.raises(SystemExit, match="the server refused a call"):
        while connection.answered() is None:
            pass


def test_what_is_refused_is_noticed(shared_server: Client, clients_module: ModuleType) -> None:
    clients = clients_module
    host, port = shared_server.url.removeprefix("http://").split(":")
    place = clients.Place(host, int(port), shared_server.grpc, 0)
    for sent in (clients.request_of(b"no image", "bundle"), clients.request_of(b"x", "other")):
        for way in clients.WAYS.values():
            with pytest.raises(SystemExit):
                clients.all_by(way, place, [sent])
