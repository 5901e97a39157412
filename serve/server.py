"""The process that listens: until it is told to stop, then until what it took is answered."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import uvicorn

from ..runtimes.core.errors import InputError
from .app import Server

GRACE_S = 5  # beyond a request's own time, when it is told to stop
HEADER_BYTES = 1 << 16  # of a request's headers, at most


@dataclass(frozen=True)
class Listen:
    """Where. port 0: a free one. certificate, key: PEM files, for TLS. connections: open at the same time, at most."""

    host: str = "127.0.0.1"
    port: int = 8080
    certificate: Path | None = None
    key: Path | None = None
    connections: int = 512


def bound(listen: Listen) -> socket.socket:
    """A socket at the address. InputError where it cannot be had."""
    if not listen.host:
        raise InputError("--host: expected an address, got nothing")
    family = socket.AF_INET6 if ":" in listen.host else socket.AF_INET
    found = socket.socket(family, socket.SOCK_STREAM)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((listen.host, listen.port))
    except (OSError, TypeError, ValueError) as error:  # the last two of a name that is none
        found.close()
        reason = error.strerror if isinstance(error, OSError) else "no address"
        raise InputError(f"cannot listen on {listen.host}:{listen.port}: {reason}") from error
    return found


def check_tls(listen: Listen) -> None:
    """InputError unless the certificate and its key are both there, and fit."""
    if (listen.certificate is None) != (listen.key is None):
        raise InputError("TLS needs both: --certificate and --key")
    if listen.certificate is not None:
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(listen.certificate, listen.key, lambda: "")
        except (OSError, ssl.SSLError) as error:
            raise InputError(f"--certificate {listen.certificate}, --key {listen.key}: {error}") from error


def serve(server: Server, listen: Listen, started: Callable[[str], object]) -> None:
    """Answers requests until SIGINT or SIGTERM, and then what it has taken. started(URL): it listens."""
    check_tls(listen)
    with contextlib.closing(bound(listen)) as socket_:
        config = uvicorn.Config(
            server.app,
            log_level="warning",
            access_log=False,
            http="h11",  # which bounds headers
            h11_max_incomplete_event_size=HEADER_BYTES,
            limit_concurrency=listen.connections + 1,  # it counts the one that asks
            timeout_graceful_shutdown=int(server.service.limits.seconds) + GRACE_S,
            ssl_certfile=listen.certificate,
            ssl_keyfile=listen.key,
            server_header=False,
        )
        scheme = "http" if listen.certificate is None else "https"
        host, port = socket_.getsockname()[:2]
        address = f"[{host}]" if ":" in host else host

        class Told(uvicorn.Server):
            """Says when it listens."""

            async def startup(self, sockets: list[socket.socket] | None = None) -> None:
                await super().startup(sockets)
                if self.started:
                    started(f"{scheme}://{address}:{port}")

            async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
                server.stopping.set()
                await super().shutdown(sockets)

        with contextlib.suppress(KeyboardInterrupt):  # as which the signal comes again, after all is answered
            Told(config).run([socket_])
