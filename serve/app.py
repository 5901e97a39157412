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

Headers = dict[bytes, bytes]
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
        routes = [
            *(Route(prefix + "/infer", not_asked, methods=["POST"]) for prefix in prefixes),
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
            await self.infer(scope, receive, send, found["name"], found["version"])
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
                self.check(headers_of(request.scope), token)
                if "name" in request.path_params:
                    self.host.check_model(request.path_params["name"], request.path_params.get("version"))
                return await answer(request)
            except Exception as error:
                return failed(error)

        return guarded

    def check(self, headers: Headers, token: bool) -> None:
        """Refused without the token, and for what another site's page asks."""
        origin, host = headers.get(b"origin"), headers.get(b"host")
        foreign = origin is not None and urlsplit(origin.decode("latin-1")).netloc.encode("latin-1") != host
        if foreign or headers.get(b"sec-fetch-site") in (b"cross-site", b"same-site"):
            raise Refused(403, "a page of another site may not ask")
        if token:
            self.host.check_token(headers.get(b"authorization", b"").decode("latin-1"))

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

    async def infer(self, scope: Scope, receive: Receive, send: Send, name: str, version: str | None) -> None:
        """Images in, embeddings or neighbours out. Beside a small network every call here is seen: no objects of
        Starlette's, where nothing has failed.
        """
        answer = await self.answer(scope, receive, name, version)
        if isinstance(answer, Response):
            await answer(scope, receive, send)
            return
        text, headers = answer
        headers.append((b"content-length", b"%d" % len(text)))
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": text})

    async def answer(
        self, scope: Scope, receive: Receive, name: str, version: str | None
    ) -> Response | tuple[bytes, list[tuple[bytes, bytes]]]:
        """The body and headers of an answer, or what has failed; nothing is kept of the request."""
        headers = headers_of(scope)
        told = Told("rest", scope["client"][0] if scope["client"] else "")
        began = time.perf_counter()
        try:
            self.check(headers, token=True)
            self.host.check_model(name, version)
            length = headers.get(HEADER_LENGTH)
            size = self.announced(headers)
            self.host.hold(size)
            try:
                body = await self.body(scope, receive)
                answer = await self.host.infer(
                    len(body), lambda most: read_request(body, length, most), write_response, told
                )
            finally:
                self.host.let_go(size)
        except Exception as error:
            response = failed(error)
            self.host.done(told, str(response.status_code), began, str(error))
            return response
        self.host.done(told, "200", began)
        return answer

    def announced(self, headers: Headers) -> int:
        """Bytes of a request's body, as it says; where it does not say, as many as it may have."""
        most = self.host.settings.body_bytes
        if headers.get(b"content-encoding", b"identity") != b"identity":
            raise Refused(415, "content-encoding: send the body as it is")
        length = headers.get(b"content-length", b"")
        if not length.isdigit():
            return most
        if len(length) > 12 or int(length) > most:
            raise Refused(413, f"a request has at most {most} bytes, got {length.decode():.40}")
        return int(length)

    async def body(self, scope: Scope, receive: Receive) -> bytes:
        """The request's body, within the limits of size and time."""
        if scope.get(WHOLE):
            return await self.received(receive)
        with self.host.reading():
            return await self.received(receive)

    async def received(self, receive: Receive) -> bytes:
        """All of a body."""
        most, parts, size = self.host.settings.body_bytes, list[bytes](), 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > most:
                raise Refused(413, f"a request has at most {most} bytes")
            if not message.get("more_body"):
                return parts[0] if len(parts) == 1 else b"".join(parts)

    async def tell_metrics(self, request: Request) -> Response:
        """For Prometheus."""
        self.host.measure()
        return Response(generate_latest(self.host.metrics.registry), media_type=CONTENT_TYPE_LATEST)


def headers_of(scope: Scope) -> Headers:
    """A request's headers by their names in lower case; of several, the first."""
    return dict(reversed(scope["headers"]))


async def not_asked(request: Request) -> Response:
    """What is asked by POST goes by no router: the route says that nothing else may be."""
    raise HTTPException(404)


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
