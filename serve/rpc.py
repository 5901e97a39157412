"""The protocol over gRPC, on the event loop of the REST server, and gRPC's own health check."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import grpc

from ..runtimes.core.errors import InputError
from ..runtimes.core.text import readable
from .formats.grpc_format import parse, read_request, write_response
from .formats.grpc_messages import HEALTH, SERVICE, messages
from .host import EXTENSIONS, Host, Refused, Told, code_of, told_of
from .listen import HEADER_BYTES, Listen, bracketed
from .service import Unavailable

CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    404: grpc.StatusCode.NOT_FOUND,
    503: grpc.StatusCode.RESOURCE_EXHAUSTED,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}
RETRY_MS = 1000
TOLD_CHARACTERS = 2000  # of a problem: it travels in a header
Answer = Callable[[bytes, Any], Awaitable[bytes]]
SERVING, NOT_SERVING = 1, 2


class RpcServer:
    """A host's gRPC server; start() and stop() it in the event loop."""

    def __init__(self, host: Host, listen: Listen) -> None:
        self.host, self.listen = host, listen
        self._server: Any = None

    async def start(self) -> str:
        """Listens; the address. InputError where that cannot be."""
        body = self.host.settings.body_bytes
        options = [
            ("grpc.max_receive_message_length", body),
            ("grpc.max_send_message_length", -1),
            ("grpc.max_metadata_size", HEADER_BYTES),
            ("grpc.so_reuseport", 0),
        ]
        self._server = grpc.aio.server(options=options, maximum_concurrent_rpcs=self.listen.connections)
        model = {"ModelReady": self.model_ready, "ModelMetadata": self.about_model}
        whole = {"ServerLive": self.live, "ServerReady": self.is_ready, "ServerMetadata": self.about_server}
        handlers = {name: self.answering(name, work) for name, work in {**whole, **model}.items()}
        handlers["ModelInfer"] = self.infer
        for service, methods in ((SERVICE, handlers), (HEALTH, {"Check": self.answering("HealthCheck", self.health)})):
            made = {name: grpc.unary_unary_rpc_method_handler(work) for name, work in methods.items()}
            self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, made),))
        name = bracketed(self.listen.host)
        try:
            port = self._bind(f"{name}:{self.listen.grpc_port}")
            if not port:
                raise RuntimeError
        except RuntimeError as error:
            raise InputError(f"cannot listen on {name}:{self.listen.grpc_port} for gRPC (--grpc-port)") from error
        await self._server.start()
        return f"{name}:{port}"

    def _bind(self, address: str) -> int:
        if self.listen.certificate is None or self.listen.key is None:
            return int(self._server.add_insecure_port(address))
        pair = (self.listen.key.read_bytes(), self.listen.certificate.read_bytes())
        return int(self._server.add_secure_port(address, grpc.ssl_server_credentials([pair])))

    async def stop(self, seconds: float) -> None:
        """Takes nothing more, and ends when what was taken is answered, at the latest after so many seconds."""
        if self._server is not None:
            await self._server.stop(seconds)

    def answering(self, name: str, work: Callable[[Any], dict[str, Any]]) -> Answer:
        """What answers a method from what its request says."""

        async def answer(body: bytes, context: Any) -> bytes:
            problem: Exception
            try:
                if name == "ModelMetadata":
                    self.check_token(context)
                told = work(parse(f"{name}Request", body))
                return bytes(messages()[f"{name}Response"](**told).SerializeToString())
            except Exception as error:
                problem = error
            await self.fail(context, problem)
            raise AssertionError

        return answer

    def live(self, request: Any) -> dict[str, Any]:
        """Whether the process runs."""
        return {"live": True}

    def is_ready(self, request: Any) -> dict[str, Any]:
        """Whether its model answers, and rightly."""
        return {"ready": self.host.ready}

    def health(self, request: Any) -> dict[str, Any]:
        """The same for gRPC's own health check."""
        if request.service not in ("", SERVICE):
            raise Refused(404, f"no service {request.service!r:.80} here: there is {SERVICE}")
        return {"status": SERVING if self.host.ready else NOT_SERVING}

    def about_server(self, request: Any) -> dict[str, Any]:
        """Server metadata."""
        return {"name": "edgerecall", "version": self.host.settings.version, "extensions": EXTENSIONS[:1]}

    def model_ready(self, request: Any) -> dict[str, Any]:
        """As the server's; a model that is not here is not ready."""
        try:
            self.host.check_model(request.name, request.version)
        except Refused:
            return {"ready": False}
        return {"ready": self.host.ready}

    def about_model(self, request: Any) -> dict[str, Any]:
        """Model metadata."""
        self.host.check_model(request.name, request.version)
        return self.host.about_model()

    async def infer(self, body: bytes, context: Any) -> bytes:
        """Images in, embeddings or neighbours out."""
        told = Told("grpc", readable(context.peer())[:80])
        began = time.perf_counter()

        def read(most: int) -> Any:
            message = parse("ModelInferRequest", body)
            self.host.check_model(message.model_name, message.model_version)
            return read_request(message, most)

        problem: Exception
        try:
            self.check_token(context)
            self.host.hold(len(body))
            try:
                answer = await self.host.infer(len(body), read, write_response, told, context.time_remaining())
            finally:
                self.host.let_go(len(body))
            self.host.done(told, "OK", began)
            return answer
        except asyncio.CancelledError:
            self.host.done(told, "CANCELLED", began, "the client has gone")
            raise
        except Exception as error:
            problem = error
        self.host.done(told, status_of(problem).name, began, str(problem))
        await self.fail(context, problem)
        raise AssertionError

    def check_token(self, context: Any) -> None:
        """Refused without the token."""
        if self.host.settings.token is not None:
            self.host.check_token(authorization(context))

    async def fail(self, context: Any, error: Exception) -> None:
        """Ends a call by its status."""
        code = status_of(error)
        retry = (("grpc-retry-pushback-ms", str(RETRY_MS)),) if code is grpc.StatusCode.RESOURCE_EXHAUSTED else ()
        await context.abort(code, readable(told_of(error))[:TOLD_CHARACTERS], retry)


def status_of(error: Exception) -> Any:
    """gRPC's status code of what went wrong with a request."""
    if isinstance(error, Unavailable):
        return grpc.StatusCode.UNAVAILABLE
    return CODES.get(code_of(error), grpc.StatusCode.INTERNAL)


def authorization(context: Any) -> str:
    """What a call brings as its token."""
    found = dict(context.invocation_metadata() or ()).get("authorization", "")
    return found if isinstance(found, str) else ""
