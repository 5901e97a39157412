"""The server's routes."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from ..runtimes.core.errors import EdgeRecallError, InputError
from ..runtimes.core.text import readable
from .metrics import Metrics
from .protocol import HEADER_LENGTH, read_request, write_response
from .service import Busy, Service, TooLate

LOGGER = logging.getLogger("edgerecall.serve")
EXTENSIONS = ["binary_tensor_data"]
RETRY_S = 1
SMALL = 1 << 16  # bytes, that are read or written in passing
Result = TypeVar("Result")
REFRESH_S = 1.0  # between two looks at whether the gallery was written


@dataclass(frozen=True)
class Settings:
    """name: of the model in URLs. version: of the package. runtime, quantisation: what computes, of which artifact.

    body_bytes: of a request, at most. body_seconds: in which it must have come. token: that requests must bring, where
    one is set. canary_seconds: between two looks at the golden images.
    """

    name: str
    version: str
    runtime: str
    quantisation: str
    body_bytes: int = 32 << 20
    body_seconds: float = 30.0
    token: str | None = None
    canary_seconds: float = 60.0


class Refused(Exception):
    """A request that is not answered: the status code, and why."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class Server:
    """A service's web application."""

    def __init__(self, service: Service, settings: Settings) -> None:
        self.service, self.settings, self.metrics = service, settings, Metrics()
        self.ready = True
        model = "/v2/models/{name}"
        routes = [
            Route("/v2", self.about_server),
            Route("/v2/health/live", self.live),
            Route("/v2/health/ready", self.is_ready),
            Route("/metrics", self.tell_metrics),
        ]
        for prefix in (model, model + "/versions/{version}"):
            routes += [
                Route(prefix, self.guarded(self.about_model)),
                Route(prefix + "/ready", self.guarded(self.model_ready)),
                Route(prefix + "/infer", self.guarded(self.infer), methods=["POST"]),
            ]
        self.app = Starlette(routes=routes, lifespan=self.lifespan)

    @contextlib.asynccontextmanager
    async def lifespan(self, app: Starlette) -> AsyncIterator[None]:
        """Looks at the golden images now and then while the server runs."""
        canary = asyncio.create_task(self.watch())
        try:
            yield
        finally:
            canary.cancel()

    async def watch(self) -> None:
        """The gallery, and the canary: what held when the server started must hold as long as it runs."""
        looked = -float("inf")
        while True:
            await asyncio.to_thread(self.service.refresh)
            if time.monotonic() - looked >= self.settings.canary_seconds:
                looked = time.monotonic()
                await self.look()
            await asyncio.sleep(REFRESH_S)

    async def look(self) -> None:
        """Whether the golden embeddings come out as sealed."""
        try:
            problem = await asyncio.to_thread(
                self.service.golden_problem, self.settings.runtime, self.settings.quantisation
            )
        except EdgeRecallError as error:
            problem = str(error)
        if problem and self.ready:
            LOGGER.error("not ready: the golden images: %s", problem)
        self.ready = problem is None

    def guarded(self, answer: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
        """An answer for those who have the token, of the model there is; every failure a line of JSON."""

        async def guarded(request: Request) -> Response:
            try:
                self.check(request)
                return await answer(request)
            except Refused as refused:
                return failed(refused.code, str(refused))
            except InputError as error:
                return failed(400, str(error))
            except Busy as error:
                return failed(503, str(error), {"retry-after": str(RETRY_S)})
            except TooLate as error:
                return failed(504, str(error))
            except ClientDisconnect:
                return failed(499, "the client has gone")
            except Exception as error:
                LOGGER.exception("a request failed")
                return failed(500, f"{type(error).__name__}: see the server's log")

        return guarded

    def check(self, request: Request) -> None:
        """Refused without the token, or for a model that is not here."""
        token = self.settings.token
        if token is not None:
            given = request.headers.get("authorization", "")
            if not hmac.compare_digest(given.encode(), f"Bearer {token}".encode()):
                raise Refused(401, "expected the header 'Authorization: Bearer TOKEN'")
        name = request.path_params["name"]
        if name != self.settings.name:
            raise Refused(404, f"no model {name!r:.80} here: there is {self.settings.name!r}")
        if request.path_params.get("version", "1") != "1":
            raise Refused(404, f"{name}: there is version '1'")

    async def about_server(self, request: Request) -> Response:
        """Server metadata."""
        return as_json({"name": "edgerecall", "version": self.settings.version, "extensions": EXTENSIONS})

    async def live(self, request: Request) -> Response:
        """Whether the process runs."""
        return as_json({"live": True})

    async def is_ready(self, request: Request) -> Response:
        """Whether its model answers, and rightly."""
        return as_json({"ready": self.ready}, 200 if self.ready else 503)

    async def about_model(self, request: Request) -> Response:
        """Model metadata."""
        service = self.service
        told = {
            "name": self.settings.name,
            "versions": ["1"],
            "platform": f"edgerecall_{self.settings.runtime}_{self.settings.quantisation}",
            "inputs": service.inputs,
            "outputs": service.outputs,
        }
        return as_json(told)

    async def model_ready(self, request: Request) -> Response:
        """As the server's."""
        return as_json({"name": self.settings.name, "ready": self.ready}, 200 if self.ready else 503)

    async def infer(self, request: Request) -> Response:
        """Images in, embeddings or neighbours out."""
        began, code = time.perf_counter(), 500
        try:
            body = await self.body(request)
            self.metrics.body_bytes.observe(len(body))
            began = time.perf_counter()
            asked = await aside(len(body), read_request, body, request.headers.get(HEADER_LENGTH))
            outputs = await self.service.infer(asked)
            size = outputs["embedding"].nbytes
            text, headers = await aside(size, write_response, asked, self.settings.name, outputs)
            self.metrics.images.inc(len(outputs["embedding"]))
            code = 200
            return Response(text, headers=headers)
        except (InputError, Refused, Busy, TooLate) as error:
            code = {Busy: 503, TooLate: 504}.get(type(error), getattr(error, "code", 400))
            raise
        finally:
            self.metrics.requests.labels(str(code)).inc()
            self.metrics.seconds.observe(time.perf_counter() - began)

    async def body(self, request: Request) -> bytes:
        """The request's body, within the limits of size and time."""
        most = self.settings.body_bytes
        if request.headers.get("content-encoding", "identity") != "identity":
            raise Refused(415, "content-encoding: send the body as it is")
        length = request.headers.get("content-length", "0")
        if length.isdigit() and int(length) > most:
            raise Refused(413, f"a request has at most {most} bytes, got {length}")

        async def read() -> bytes:
            body = bytearray()
            async for part in request.stream():
                body += part
                if len(body) > most:
                    raise Refused(413, f"a request has at most {most} bytes")
            return bytes(body)

        try:
            return await asyncio.wait_for(read(), self.settings.body_seconds)
        except asyncio.TimeoutError:
            raise Refused(408, f"the body did not come within {self.settings.body_seconds:g} s") from None

    async def tell_metrics(self, request: Request) -> Response:
        """For Prometheus."""
        self.metrics.waiting.set(self.service.waiting)
        self.metrics.golden.set(float(self.ready))
        if self.service.gallery is not None:
            self.metrics.rows.set(len(self.service.gallery))
        return Response(generate_latest(self.metrics.registry), media_type=CONTENT_TYPE_LATEST)


async def aside(size: int, work: Callable[..., Result], *arguments: object) -> Result:
    """Work on so many bytes, in a thread of its own where the others would notice."""
    return work(*arguments) if size < SMALL else await asyncio.to_thread(work, *arguments)


def as_json(value: object, code: int = 200) -> Response:
    """A value as the whole answer."""
    return Response(json.dumps(value).encode(), code, {"content-type": "application/json"})


def failed(code: int, message: str, headers: dict[str, str] | None = None) -> Response:
    """The protocol's error object."""
    answer = as_json({"error": readable(message)}, code)
    answer.headers.update(headers or {})
    return answer
