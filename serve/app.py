"""The server's routes."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import logging
import time
from asyncio import FIRST_COMPLETED
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
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
LOOK_S = 120.0  # in which the golden images are embedded, at most
Result = TypeVar("Result")
Answer = Callable[[Request], Awaitable[Response]]
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

    def __init__(self, code: int, message: str, **headers: str) -> None:
        super().__init__(message)
        self.code, self.headers = code, {name.replace("_", "-"): value for name, value in headers.items()}


class Server:
    """A service's web application."""

    def __init__(self, service: Service, settings: Settings) -> None:
        self.service, self.settings, self.metrics = service, settings, Metrics()
        self.healthy = True
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
                Route(prefix + "/ready", self.guarded(self.model_ready, token=False)),
                Route(prefix + "/infer", self.counted(self.guarded(self.infer)), methods=["POST"]),
            ]
        self.app = Starlette(routes=routes, lifespan=self.lifespan, exception_handlers={HTTPException: not_here})
        self.stopping = asyncio.Event()
        self._readers = ThreadPoolExecutor(2, "serve-read")

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
            try:
                await asyncio.to_thread(self.service.refresh)
                if time.monotonic() - looked >= self.settings.canary_seconds:
                    looked = time.monotonic()
                    await self.look()
            except Exception:
                LOGGER.exception("not ready: the look at the golden images or the gallery failed")
                self.healthy = False
            await asyncio.sleep(min(REFRESH_S, self.settings.canary_seconds))

    async def look(self) -> None:
        """Whether the golden embeddings come out as sealed."""
        look = asyncio.to_thread(self.service.golden_problem, self.settings.runtime, self.settings.quantisation)
        try:
            problem = await asyncio.wait_for(look, LOOK_S)
        except asyncio.TimeoutError:
            problem = f"not embedded within {LOOK_S} s"
        except EdgeRecallError as error:
            problem = str(error)
        if problem and self.healthy:
            LOGGER.error("not ready: the golden images: %s", problem)
        self.healthy = problem is None

    @property
    def ready(self) -> bool:
        """Whether a replica answers, and all rightly as far as was looked."""
        return self.healthy and self.service.alive > 0

    def counted(self, answer: Answer) -> Answer:
        """An answer, told to Prometheus by its code."""

        async def counted(request: Request) -> Response:
            response = await answer(request)
            self.metrics.requests.labels(str(response.status_code)).inc()
            return response

        return counted

    def guarded(self, answer: Answer, token: bool = True) -> Answer:
        """An answer of the model there is; every failure a line of JSON. token: for those alone who have it."""

        async def guarded(request: Request) -> Response:
            try:
                self.check(request, token)
                return await answer(request)
            except Refused as refused:
                return failed(refused.code, str(refused), refused.headers)
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

    def check(self, request: Request, token: bool) -> None:
        """Refused without the token, or for a model that is not here."""
        if token and self.settings.token is not None:
            scheme, _, given = request.headers.get("authorization", "").partition(" ")
            same = hmac.compare_digest(given.encode(), self.settings.token.encode())
            if scheme.lower() != "bearer" or not same:
                raise Refused(401, "expected the header 'Authorization: Bearer TOKEN'", www_authenticate="Bearer")
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
        body = await self.body(request)
        self.metrics.body_bytes.observe(len(body))
        with self.metrics.seconds.time():
            most = self.service.limits.images
            asked = await self.aside(len(body), read_request, body, request.headers.get(HEADER_LENGTH), most)
            outputs = await self.service.infer(asked)
            size = outputs["embedding"].nbytes + (100 * outputs["scores"].size if "scores" in outputs else 0)
            text, headers = await self.aside(size, write_response, asked, self.settings.name, outputs)
        self.metrics.images.inc(len(outputs["embedding"]))
        return Response(text, headers=headers)

    async def aside(self, size: int, work: Callable[..., Result], *arguments: object) -> Result:
        """Work on so many bytes, in a thread of its own where the others would notice."""
        if size < SMALL:
            return work(*arguments)
        return await asyncio.get_running_loop().run_in_executor(self._readers, work, *arguments)

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

        reading, stopping = asyncio.ensure_future(read()), asyncio.ensure_future(self.stopping.wait())
        try:
            await asyncio.wait({reading, stopping}, timeout=self.settings.body_seconds, return_when=FIRST_COMPLETED)
            if reading.done():
                return reading.result()
            if self.stopping.is_set():
                raise Refused(503, "the server is stopping", retry_after=str(RETRY_S), connection="close")
            raise Refused(408, f"the body did not come within {self.settings.body_seconds:g} s", connection="close")
        finally:
            reading.cancel()
            stopping.cancel()

    async def tell_metrics(self, request: Request) -> Response:
        """For Prometheus."""
        self.metrics.waiting.set(self.service.waiting)
        self.metrics.golden.set(float(self.healthy))
        self.metrics.replicas.set(self.service.alive)
        if self.service.gallery is not None:
            self.metrics.gallery.set(float(self.service.gallery_problem is None))
            self.metrics.rows.set(len(self.service.gallery))
        return Response(generate_latest(self.metrics.registry), media_type=CONTENT_TYPE_LATEST)


async def not_here(request: Request, error: Exception) -> Response:
    """What has no route, or not that method, as the protocol's error object."""
    code = error.status_code if isinstance(error, HTTPException) else 500
    return failed(code, f"{request.method} {request.url.path}: {'no such route' if code == 404 else 'not allowed'}")


def as_json(value: object, code: int = 200) -> Response:
    """A value as the whole answer."""
    return Response(json.dumps(value).encode(), code, {"content-type": "application/json"})


def failed(code: int, message: str, headers: dict[str, str] | None = None) -> Response:
    """The protocol's error object."""
    answer = as_json({"error": readable(message)}, code)
    answer.headers.update(headers or {})
    return answer
