"""HTTP connections as uvicorn has them, with bounds on what is no body and on the time that everything takes."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from .listen import HEADER_BYTES

WHOLE = "edgerecall.whole"  # in a request's scope, once all of its body has come
FRAMES = 8  # bytes around each byte of a body in chunks, at most


class JoinedWrites:
    """A transport that sends what is written in one turn of the loop at once: an answer's head with its body."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport, self._loop = transport, loop
        self.is_closing = transport.is_closing
        self._parts: list[bytes] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Sends it with the next `flush`, at the end of this turn at the latest."""
        if not self._parts:
            self._loop.call_soon(self.flush)
        self._parts.append(data)

    def flush(self) -> None:
        """Sends what was written."""
        parts, self._parts = self._parts, []
        if parts and not self._transport.is_closing():
            self._transport.write(parts[0] if len(parts) == 1 else b"".join(parts))

    def close(self) -> None:
        """After what was written."""
        self.flush()
        self._transport.close()


class BoundedProtocol(HttpToolsProtocol):
    """Closes a connection whose headers, trailers or chunk framing are longer than `HEADER_BYTES`, or do not come; that
    goes on sending what was answered already; or that does not take its answer.

    headers_s: seconds in which a connection's first request, and every request's headers, must have come. rest_s: that
    the rest of a body is passed over, once it was answered. answer_s: in which an answer's bytes must be taken.
    """

    headers_s = 20.0
    rest_s = 5.0
    answer_s = 30.0

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._bytes = self._body_bytes = 0
        self._timer: asyncio.TimerHandle | None = None
        self._writing: asyncio.TimerHandle | None = None
        self._over = False

    @property
    def _at_work(self) -> bool:
        cycle: Any = self.cycle  # None before the first request
        return cycle is not None and not cycle.response_complete

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._joined = JoinedWrites(transport, self.loop)
        super().connection_made(self._joined)  # type: ignore[arg-type]
        self._await_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        self.resume_writing()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._over:
            return
        self._bytes += len(data)
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self._bytes - (1 + FRAMES) * self._body_bytes > HEADER_BYTES:
            self.send_400_response(f"More than {HEADER_BYTES} bytes of headers.")
        elif not self._at_work and self._timer is None and self.timeout_keep_alive_task is None:
            self._await_headers()  # of what came no request has begun

    def on_message_begin(self) -> None:
        self._bytes = self._body_bytes = 0
        super().on_message_begin()
        self._await_headers()

    def on_headers_complete(self) -> None:
        self._stop_timer()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        scope: Any = self.scope
        scope[WHOLE] = True
        super().on_message_complete()

    def on_response_complete(self) -> None:
        if self.cycle.more_body and not self.pipeline:
            self._over = True
            self._start_timer(self.rest_s)
        self._joined.flush()
        super().on_response_complete()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._writing = self.loop.call_later(self.answer_s, self.transport.abort)

    def resume_writing(self) -> None:
        if self._writing is not None:
            self._writing.cancel()
            self._writing = None
        if self.flow is not None:
            super().resume_writing()

    def _await_headers(self) -> None:
        self._start_timer(self.headers_s)

    def _start_timer(self, seconds: float) -> None:
        self._stop_timer()
        self._timer = self.loop.call_later(seconds, self._too_late)

    def _too_late(self) -> None:
        if self._at_work:  # what was asked before is still to be answered
            self._await_headers()
        else:
            self.transport.close()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
