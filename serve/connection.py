"""HTTP connections as uvicorn has them, with a bound on what is no body and on the time that headers take."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from .listen import HEADER_BYTES

FRAMES = 8  # bytes around each byte of a body in chunks, at most


class BoundedProtocol(HttpToolsProtocol):
    """Closes a connection whose headers, trailers or chunk framing are longer than `HEADER_BYTES`, or do not come.

    headers_s: seconds in which a connection's first request, and every request's headers, must have come.
    """

    headers_s = 20.0

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._bytes = self._body_bytes = 0
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._await_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        self._have_headers()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._bytes += len(data)
        super().data_received(data)
        if self._bytes - (1 + FRAMES) * self._body_bytes > HEADER_BYTES and not self.transport.is_closing():
            self.send_400_response(f"More than {HEADER_BYTES} bytes of headers.")

    def on_message_begin(self) -> None:
        self._bytes = self._body_bytes = 0
        super().on_message_begin()
        self._await_headers()

    def on_headers_complete(self) -> None:
        self._have_headers()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        super().on_body(body)

    def _await_headers(self) -> None:
        self._have_headers()
        self._timer = self.loop.call_later(self.headers_s, self.transport.close)

    def _have_headers(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
