"""The protocol over REST: the server's routes."""

from __future__ import annotations

import contextlib
import json
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from importlib import resources
from pathlib import Path
from urllib.parse import urlsplit

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from ..runtimes.core.errors import EdgeRecallError
from ..runtimes.core.text import readable
from .connection import WHOLE
from .formats.rest_format import HEADER_LENGTH, read_request, write_response
from .host import EXTENSIONS, RETRY_S, Host, Refused, Told, code_of, told_of
from .page import Page

Answer = Callable[[Request], Awaitable[Response]]
INFER = re.compile(r"/v2/models/(?P<name>[^/]+)(/versions/(?P<version>[^/]+))?/infer")


class App:
    """A host's web application. pictures: the folder in which the gallery's ids name images, for its page."""

    def __init__(self, host: Host, pictures: Path | None = None) -> None:
        self.host = host
        page = Page(host, pictures)
        self.openapi = json.loads((resources.files(__package__) / "openapi.json").read_text(encoding="utf-8"))
        self.openapi["components"]["parameters"]["name"]["schema"]["const"] = host.settings.name
        model = "/v2/models/{name}"
        prefixes = (model, model + "/versions/{version}")
        routes = [Route(prefix + "/infer", self.infer, methods=["POST"]) for prefix in prefixes]
        routes += [
            Route("/v2", self.about_server),
            Route("/v2/health/live", self.live),
            Route("/v2/health/ready", self.is_ready),
            Route("/v2/repository/index", self.guarded(self.index), methods=["POST"]),
            Route("/v2/repository/models/{name}/load", self.guarded(self.load), methods=["POST"]),
            Route("/metrics", self.tell_metrics),
            Route("/openapi.json", self.described),
            Route("/", page.index),
            Route("/page/{file}", self.guarded(page.file, token=False)),
            Route("/pictures/{id:path}", self.guarded(page.picture)),
        ]
        for prefix in prefixes:
            routes += [
                Route(prefix, self.guarded(self.about_model)),
                Route(prefix + "/ready", self.guarded(self.model_ready, token=False)),
            ]
        self.routed = Starlette(routes=routes, lifespan=self.lifespan, exception_handlers={HTTPException: not_here})
        self.routed.router.redirect_slashes = False  # to wherever a request's Host says

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI. What most requests ask for goes by no router: a request's way through it takes a fifth of its time."""
        if scope["type"] == "http" and scope["method"] == "POST" and (found := INFER.fullmatch(scope["path"])):
            scope["path_params"] = {name: value for name, value in found.groupdict().items() if value is not None}
            answer = await self.infer(Request(scope, receive))
            await answer(scope, receive, send)
        else:
            await self.routed(scope, receive, send)

    @contextlib.asynccontextmanager
    async def lifespan(self, app: Starlette) -> AsyncIterator[None]:
        """Looks at the golden images now and then while the server runs."""
        async with self.host.running():
            yield

    def guarded(self, answer: Answer, token: bool = True) -> Answer:
        """An answer of the model there is; every failure a line of JSON. token: for those alone who have it."""

        async def guarded(request: Request) -> Response:
            try:
                self.check(request, token)
                return await answer(request)
            except Exception as error:
                return failed(error)

        return guarded

    def check(self, request: Request, token: bool) -> None:
        """Refused without the token, for a model that is not here, and for what another site's page asks."""
        origin = request.headers.get("origin")
        foreign = origin is not None and urlsplit(origin).netloc != request.headers.get("host")
        if foreign or request.headers.get("sec-fetch-site") in ("cross-site", "same-site"):
            raise Refused(403, "a page of another site may not ask")
        if token:
            self.host.check_token(request.headers.get("authorization", ""))
        if "name" in request.path_params:
            self.host.check_model(request.path_params["name"], request.path_params.get("version"))

    async def described(self, request: Request) -> Response:
        """These routes, as OpenAPI."""
        return as_json(self.openapi)

    async def about_server(self, request: Request) -> Response:
        """Server metadata."""
        return as_json({"name": "edgerecall", "version": self.host.settings.version, "extensions": EXTENSIONS})

    async def live(self, request: Request) -> Response:
        """Whether the process runs."""
        return as_json({"live": True})

    async def is_ready(self, request: Request) -> Response:
        """Whether its model answers, and rightly."""
        return as_json({"ready": self.host.ready}, 200 if self.host.ready else 503)

    async def about_model(self, request: Request) -> Response:
        """Model metadata."""
        return as_json(self.host.about_model())

    async def model_ready(self, request: Request) -> Response:
        """As the server's."""
        return as_json({"name": self.host.settings.name, "ready": self.host.ready}, 200 if self.host.ready else 503)

    async def index(self, request: Request) -> Response:
        """What models there are, as Triton's model repository extension tells it."""
        state = "READY" if self.host.ready else "UNAVAILABLE"
        return as_json([{"name": self.host.settings.name, "version": "1", "state": state, "reason": ""}])

    async def load(self, request: Request) -> Response:
        """Loads the model that is on disk now; one that cannot be served is refused, as Triton does, by 400."""
        try:
            await self.host.reload()
        except EdgeRecallError as error:
            raise Refused(400, f"served as before: {error}") from error
        return as_json({})

    async def infer(self, request: Request) -> Response:
        """Images in, embeddings or neighbours out."""
        told = Told("rest", request.client.host if request.client else "")
        began, problem = time.perf_counter(), None
        try:
            self.check(request, token=True)
            length = request.headers.get(HEADER_LENGTH)
            with self.host.holding(self.announced(request)):
                body = await self.body(request)
                text, headers = await self.host.infer(
                    len(body), lambda most: read_request(body, length, most), write_response, told
                )
            response = Response(text, headers=headers)
        except Exception as error:
            response, problem = failed(error), str(error)
        self.host.done(told, str(response.status_code), began, problem)
        return response

    def announced(self, request: Request) -> int:
        """Bytes of a request's body, as it says; where it does not say, as many as it may have."""
        most = self.host.settings.body_bytes
        if request.headers.get("content-encoding", "identity") != "identity":
            raise Refused(415, "content-encoding: send the body as it is")
        length = request.headers.get("content-length", "")
        if not (length.isascii() and length.isdigit()):
            return most
        if len(length) > 12 or int(length) > most:
            raise Refused(413, f"a request has at most {most} bytes, got {length:.40}")
        return int(length)

    async def body(self, request: Request) -> bytes:
        """The request's body, within the limits of size and time."""
        most, body = self.host.settings.body_bytes, bytearray()
        with contextlib.nullcontext() if request.scope.get(WHOLE) else self.host.reading():
            async for part in request.stream():
                body += part
                if len(body) > most:
                    raise Refused(413, f"a request has at most {most} bytes")
        return bytes(body)

    async def tell_metrics(self, request: Request) -> Response:
        """For Prometheus."""
        self.host.measure()
        return Response(generate_latest(self.host.metrics.registry), media_type=CONTENT_TYPE_LATEST)


async def not_here(request: Request, error: Exception) -> Response:
    """What has no route, or not that method, as the protocol's error object."""
    code = error.status_code if isinstance(error, HTTPException) else 500
    told = f"{request.method} {request.url.path}: {'no such route' if code == 404 else 'not allowed'}"
    allowed = getattr(error, "headers", None) or {}
    return failed(Refused(code, told, **allowed))


def as_json(value: object, code: int = 200) -> Response:
    """A value as the whole answer."""
    return Response(json.dumps(value).encode(), code, {"content-type": "application/json"})


def failed(error: Exception) -> Response:
    """The protocol's error object."""
    if isinstance(error, ClientDisconnect):
        error = Refused(499, "the client has gone")
    answer = as_json({"error": readable(told_of(error))}, code_of(error))
    if isinstance(error, Refused):
        answer.headers.update(error.headers)
    elif answer.status_code == 503:
        answer.headers["retry-after"] = str(RETRY_S)
    return answer
