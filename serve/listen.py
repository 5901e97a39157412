"""Where a server listens."""

from __future__ import annotations

import socket
import ssl
from dataclasses import dataclass
from pathlib import Path

from ..runtimes.core.errors import InputError

HEADER_BYTES = 1 << 16  # of a request's headers, at most


@dataclass(frozen=True)
class Listen:
    """Where. port 0: a free one. grpc_port: None for no gRPC. certificate, key: PEM files, for TLS of both.

    connections: open at the same time, at most; of gRPC, calls.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    grpc_port: int | None = None
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
        found.listen(128)
    except (OSError, TypeError, ValueError) as error:  # the last two of a name that is none
        found.close()
        reason = error.strerror if isinstance(error, OSError) else "no address"
        raise InputError(f"cannot listen on {listen.host}:{listen.port}: {reason}") from error
    return found


def bracketed(host: str) -> str:
    """A host as it stands before a port."""
    return f"[{host}]" if ":" in host else host


def check_tls(listen: Listen) -> None:
    """InputError unless the certificate and its key are both there, and fit."""
    if (listen.certificate is None) != (listen.key is None):
        raise InputError("TLS needs both: --certificate and --key")
    if listen.certificate is not None:
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(listen.certificate, listen.key, lambda: "")
        except (OSError, ssl.SSLError) as error:
            raise InputError(f"--certificate {listen.certificate}, --key {listen.key}: {error}") from error
