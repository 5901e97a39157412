"""Connections that say nothing, too much or too slowly end, and nobody else notices."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import uvicorn

from edgerecall.serve.connection import BoundedProtocol, JoinedWrites
from edgerecall.serve.listen import HEADER_BYTES

Message = dict[str, Any]
ANSWER = b"HTTP/1.1 200"


async def echo(scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Any]) -> None:
    """Answers by how many bytes the body has."""
    if scope["type"] != "http":
        return
    if scope["path"] == "/parts":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"6")]})
        await send({"type": "http.response.body", "body": b"one", "more_body": True})
        await asyncio.sleep(1)
        await send({"type": "http.response.body", "body": b"two"})
        return
    if scope["path"] != "/":
        await asyncio.sleep(1.5 if scope["path"] == "/slow" else 0)
        body = bytes(64 << 20 if scope["path"] == "/large" else 1)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
        await send({"type": "http.response.body", "body": body})
        return
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        size, more = size + len(message["body"]), message.get("more_body", False)
    body = str(size).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


class Impatient(BoundedProtocol):
    headers_s = 0.5
    rest_s = 0.5
    answer_s = 1.0


@pytest.fixture(scope="module")
def address() -> Iterator[tuple[str, int]]:
    """A server of the protocol alone."""
    config = uvicorn.Config(echo, http=Impatient, log_level="critical", port=0, lifespan="off")
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=lambda: asyncio.run(server.serve([listening])))
        thread.start()
        while not server.started:
            time.sleep(0.01)
        yield listening.getsockname()[:2]
        server.should_exit = True
        thread.join()


def all_of(stream: socket.socket) -> bytes:
    """What comes until the other side closes."""
    found = b""
    try:
        while part := stream.recv(65536):
            found += part
    except ConnectionResetError:
        pass
    return found


def answered(stream: socket.socket, end: bytes) -> None:
    """Reads an answer that ends so."""
    found = b""
    while not found.endswith(b"\r\n\r\n" + end):
        part = stream.recv(65536)
        assert part, found
        found += part
    assert found.startswith(ANSWER)


HEAD = b"POST / HTTP/1.1\r\nHost: x\r\n"


@pytest.mark.parametrize("sent", [b"", b"P", b"POST / HTTP/1.1\r\nHost: x\r\nA: "])
def test_headers_that_do_not_come(address: tuple[str, int], sent: bytes) -> None:
    with socket.create_connection(address, 30) as stream:
        began = time.monotonic()
        stream.sendall(sent)
        assert all_of(stream) == b"" and 0.3 < time.monotonic() - began < 10


def test_headers_that_dribble(address: tuple[str, int]) -> None:
    with socket.create_connection(address, 30) as stream:
        began = time.monotonic()
        stream.sendall(b"GET / HTTP/1.1\r\n")
        with pytest.raises(OSError, match=r"Broken pipe|reset"):  # although a byte comes again and again
            while time.monotonic() - began < 10:
                stream.sendall(b"A")
                time.sleep(0.05)


@pytest.mark.parametrize(
    ("head", "unit"),
    [
        (b"GET /", b"x" * 1024),
        (b"GET / HTTP/1.1\r\nA: ", b"x" * 1024),
        (b"GET / HTTP/1.1\r\n", b"A: " + b"x" * 1000 + b"\r\n"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n", b"A: " + b"x" * 1000 + b"\r\n"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n1;", b"x" * 1024),
    ],
    ids=["path", "header", "headers", "trailers", "chunk extension"],
)
def test_headers_without_end(address: tuple[str, int], head: bytes, unit: bytes) -> None:
    with socket.create_connection(address, 30) as stream:
        stream.sendall(head)
        sent = len(head)
        try:
            while sent < 16 << 20:
                stream.sendall(unit)
                sent += len(unit)
        except OSError:
            pass
        assert sent < 8 << 20  # what the sockets take before they see that it is closed
        found = all_of(stream)
    assert found == b"" or found.startswith((b"HTTP/1.1 400", ANSWER)), found


@pytest.mark.parametrize("rest", [b"\r\n", b"P"])
def test_an_answer_and_then_nothing(address: tuple[str, int], rest: bytes) -> None:
    with socket.create_connection(address, 30) as stream:
        stream.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        answered(stream, b"0")
        stream.sendall(rest)
        began = time.monotonic()
        assert all_of(stream) == b"" and time.monotonic() - began < 10


def test_a_body_that_goes_on_behind_its_answer(address: tuple[str, int]) -> None:
    with socket.create_connection(address, 30) as stream:
        stream.sendall(b"POST /soon HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n")
        assert stream.recv(1000).startswith(ANSWER)
        began = time.monotonic()
        with pytest.raises(OSError, match=r"Broken pipe|reset"):
            while time.monotonic() - began < 10:
                stream.sendall(bytes(1 << 16))


def test_a_head_that_does_not_come_leaves_the_answer_before_it(address: tuple[str, int]) -> None:
    with socket.create_connection(address, 30) as stream:
        stream.sendall(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\nGET /")
        found = all_of(stream)
    assert found.startswith(ANSWER) and found.count(ANSWER) == 1


def test_an_answer_that_is_not_taken(address: tuple[str, int]) -> None:
    with socket.create_connection(address, 30) as stream:
        stream.sendall(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
        time.sleep(2.5)
        assert len(all_of(stream)) < 64 << 20


def test_parts_of_an_answer_do_not_wait_for_one_another(address: tuple[str, int]) -> None:
    with socket.create_connection(address, 30) as stream:
        stream.sendall(b"GET /parts HTTP/1.1\r\nHost: x\r\n\r\n")
        found, began = b"", time.monotonic()
        while not found.endswith(b"one"):
            found += stream.recv(1000)
        assert time.monotonic() - began < 0.9
        assert stream.recv(1000) == b"two"


def test_what_is_written_together_is_sent_at_once() -> None:
    sent: list[bytes | None] = []
    closed = False

    async def write() -> None:
        nonlocal closed
        transport = SimpleNamespace(write=sent.append, close=lambda: sent.append(None), is_closing=lambda: closed)
        joined = JoinedWrites(transport, asyncio.get_running_loop())  # type: ignore[arg-type]
        joined.write(b"head")
        joined.write(b"body")
        assert sent == [] and not joined.is_closing()
        joined.flush()
        assert sent == [b"headbody"]
        joined.write(b"a")
        await asyncio.sleep(0)
        assert sent == [b"headbody", b"a"]
        joined.write(b"b")
        joined.close()
        await asyncio.sleep(0)
        closed = True
        joined.write(b"nobody is there")
        await asyncio.sleep(0)

    asyncio.run(write())
    assert sent == [b"headbody", b"a", b"b", None]


def test_what_is_allowed(address: tuple[str, int]) -> None:
    with socket.create_connection(address, 30) as stream:
        for _ in range(2):  # on one connection, with a rest
            stream.sendall(HEAD + b"Content-Length: 3\r\n\r\n")
            time.sleep(0.8)  # the body has more time than the headers
            stream.sendall(b"abc")
            answered(stream, b"3")
            time.sleep(0.8)
        chunked = b"".join(b"1\r\nx\r\n" for _ in range(200_000))  # 1 MB of frames for 200 kB
        stream.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunked + b"0\r\n\r\n")
        answered(stream, b"200000")
        stream.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"x" * (HEADER_BYTES - 1000) + b"\r\n\r\n")
        answered(stream, b"0")
        pipelined = HEAD + b"Content-Length: 3\r\n\r\nabc"
        stream.sendall(2 * pipelined)
        found = b""
        while found.count(ANSWER) < 2:
            found += stream.recv(1000)
