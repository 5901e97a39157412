"""A gRPC client that costs little: one connection's HTTP/2 frames, one call at a time, requests made beforehand.

https://www.rfc-editor.org/rfc/rfc9113 and gRPC's PROTOCOL-HTTP2.md. grpcio's own client takes as much processor for a
call as the server does, of the same cores.
"""

from __future__ import annotations

import socket
import struct
import time

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RESET, SETTINGS, PING, GOAWAY, WINDOW = 0, 1, 3, 4, 6, 7, 8
END_STREAM, END_HEADERS, ACK = 1, 4, 1
LARGEST_FRAME = 1 << 14  # that every peer takes
FIRST_WINDOW = (1 << 16) - 1
INITIAL_WINDOW = 4  # among the settings
MOST = (1 << 31) - 1


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """A frame as it is sent."""
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def literal(name: bytes, value: bytes) -> bytes:
    """A header that enters no table (HPACK, RFC 7541, 6.2.2)."""
    assert max(len(name), len(value)) < 127
    return b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value


class Connection:
    """A socket whose peer ends it only by mistake."""

    def __init__(self, host: str, port: int) -> None:
        self.socket = socket.create_connection((host, port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def received(self) -> bytes:
        """What has come next."""
        part = self.socket.recv(1 << 16)
        if not part:
            raise SystemExit("the server closed the connection")
        return part


class RpcClient(Connection):
    """A connection that calls a method and is not waited for. answered: its seconds, once the answer is there."""

    def __init__(self, address: str, method: str) -> None:
        host, port = address.split(":")
        super().__init__(host, int(port))
        given = {b":method": b"POST", b":scheme": b"http", b":path": method.encode(), b":authority": b"localhost"}
        given |= {b"content-type": b"application/grpc", b"te": b"trailers"}
        self._head = b"".join(literal(name, value) for name, value in given.items())
        self._stream, self._began, self._answer, self._ended = -1, 0.0, b"", False
        self._left = b""  # of the message, for which there was no room
        self._room, self._first_room, self._stream_room = FIRST_WINDOW, FIRST_WINDOW, 0
        self._buffer = b""
        ours = frame(SETTINGS, 0, 0, struct.pack(">HI", INITIAL_WINDOW, MOST))
        self.socket.sendall(PREFACE + ours + frame(WINDOW, 0, 0, struct.pack(">I", MOST - FIRST_WINDOW)))

    @property
    def answer(self) -> bytes:
        """The message that came."""
        return self._answer[5:]

    def ask(self, message: bytes) -> None:
        """Sends it."""
        self._stream += 2
        self._answer, self._ended, self._stream_room = b"", False, self._first_room
        self._left = struct.pack(">BI", 0, len(message)) + message
        self._began = time.perf_counter()
        self._send(frame(HEADERS, END_HEADERS, self._stream, self._head))

    def _send(self, before: bytes = b"") -> None:
        """As much of the message as the server has room for."""
        ready = [before] if before else []
        while size := min(len(self._left), LARGEST_FRAME, max(self._room, 0), max(self._stream_room, 0)):
            piece, self._left = self._left[:size], self._left[size:]
            ready.append(frame(DATA, 0 if self._left else END_STREAM, self._stream, piece))
            self._room -= size
            self._stream_room -= size
        if ready:
            self.socket.sendall(b"".join(ready))

    def answered(self) -> float | None:
        """Reads what has come; None where that is not all."""
        self._buffer += self.received()
        at, reply = 0, b""
        while len(self._buffer) >= at + 9:
            length = int.from_bytes(self._buffer[at : at + 3], "big")
            if len(self._buffer) < at + 9 + length:
                break
            kind, flags = self._buffer[at + 3], self._buffer[at + 4]
            stream = int.from_bytes(self._buffer[at + 5 : at + 9], "big")
            reply += self._take(kind, flags, stream, self._buffer[at + 9 : at + 9 + length])
            at += 9 + length
        self._buffer = self._buffer[at:]
        self._send(reply)
        if not self._ended:
            return None
        if len(self._answer) < 6 or len(self._answer) != 5 + int.from_bytes(self._answer[1:5], "big"):
            raise SystemExit("the server refused a call")  # it sends no message then
        return time.perf_counter() - self._began

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> bytes:
        """A frame; what must be sent for it."""
        if kind == SETTINGS and not flags & ACK:
            for at in range(0, len(payload), 6):
                name, value = struct.unpack_from(">HI", payload, at)
                if name == INITIAL_WINDOW:
                    self._stream_room += value - self._first_room
                    self._first_room = value
            return frame(SETTINGS, ACK, 0)
        if kind == PING and not flags & ACK:
            return frame(PING, ACK, 0, payload)
        if kind == WINDOW:
            room = int.from_bytes(payload, "big")
            if stream == 0:
                self._room += room
            elif stream == self._stream:
                self._stream_room += room
        elif kind in (RESET, GOAWAY):
            raise SystemExit(f"the server ended a call: {payload!r}")
        elif stream == self._stream and kind in (DATA, HEADERS):
            self._answer += payload if kind == DATA else b""
            self._ended = bool(flags & END_STREAM)
        return b""
