"""The benchmark's clients ask as real ones do, and notice what is no answer."""

from __future__ import annotations

import importlib
import sys
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


@pytest.mark.parametrize("evenly", [True, False])
def test_requests_begin_when_they_are_due(
    shared_server: Client, data: Path, clients_module: ModuleType, evenly: bool
) -> None:
    clients = clients_module
    host, port = shared_server.url.removeprefix("http://").split(":")
    place = clients.Place(host, int(port), shared_server.grpc, 0)
    sent = clients.request_of(next(iter(sorted(data.glob("*_final/*.JPG")))).read_bytes(), "bundle")
    for way in clients.WAYS.values():
        began = time.perf_counter()
        found = clients.paced(way, place, [sent] * 40, 80, evenly)
        assert len(found) == 40 and min(found) > 0 and sum(found) / 40 < 1
        assert time.perf_counter() - began > 0.3  # .5 s are due
    assert clients.paced(way, place, [sent] * 100, 1e6, evenly)[-1] > 0  # more than there are connections


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
