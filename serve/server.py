"""The process that listens: until it is told to stop, then until what it took is answered."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import uvicorn

from ..runtimes.core.errors import EdgeRecallError
from .app import App
from .connection import BoundedProtocol
from .host import Host
from .listen import Listen, bound, bracketed, check_tls
from .rpc import RpcServer

KEPT_S = 75  # that an idle connection is kept: longer than the proxies before it keep theirs
GRACE_S = 5  # beyond a request's own time, when it is told to stop


def serve(
    host: Host, listen: Listen, started: Callable[[str, str | None], object], pictures: Path | None = None
) -> None:
    """Answers requests until SIGINT or SIGTERM, and then what it has taken; SIGHUP: serves what is on disk now.

    started(URL, address of gRPC): it listens. pictures: the folder of the images that the gallery's ids name.
    """
    check_tls(listen)
    app = App(host, pictures)
    rpc = None if listen.grpc_port is None else RpcServer(host, listen)
    longest = int(host.service.limits.seconds) + GRACE_S
    with contextlib.closing(bound(listen)) as socket_:
        config = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            http=BoundedProtocol,
            ws="none",
            timeout_keep_alive=KEPT_S,
            limit_concurrency=listen.connections + 1,  # it counts the one that asks
            timeout_graceful_shutdown=longest,
            ssl_certfile=listen.certificate,
            ssl_keyfile=listen.key,
            server_header=False,
        )
        scheme = "http" if listen.certificate is None else "https"
        name, port = socket_.getsockname()[:2]
        address = bracketed(name)
        failures: list[EdgeRecallError] = []

        class Told(uvicorn.Server):
            """Says when it listens, and has gRPC beside it."""

            async def startup(self, sockets: list[socket.socket] | None = None) -> None:
                try:
                    beside = None if rpc is None else await rpc.start()
                except EdgeRecallError as error:
                    failures.append(error)
                    self.should_exit = True
                    return
                await super().startup(sockets)
                if self.started:
                    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, again)
                    started(f"{scheme}://{address}:{port}", beside)

            async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
                host.stop()
                ends = [super().shutdown(sockets)] + ([rpc.stop(longest)] if rpc else [])
                await asyncio.gather(*ends)

        reloads: set[asyncio.Task[None]] = set()

        def again() -> None:
            task = asyncio.create_task(reload(host))
            reloads.add(task)
            task.add_done_callback(reloads.discard)

        with contextlib.suppress(KeyboardInterrupt):  # as which the signal comes again, after all is answered
            Told(config).run([socket_])
        if failures:
            raise failures[0]


async def reload(host: Host) -> None:
    """What cannot be loaded is logged."""
    with contextlib.suppress(EdgeRecallError):
        await host.reload()
