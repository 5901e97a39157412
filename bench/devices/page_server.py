"""What serves a page its job, and takes what it found: to one page, by the token of its link."""

from __future__ import annotations

import json
import secrets
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ...runtimes.core.errors import InputError
from ...runtimes.core.text import readable
from ...runtimes.core.versions import needs
from .device import DeviceLost
from .device_report import RESULT

# A page of another origin can neither read nor embed what is here, and this one has its own process, in which browsers
# give threads and a fine clock.
HEADERS = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": "default-src 'self'; script-src 'self' 'wasm-unsafe-eval' blob:;"
    " worker-src 'self' blob:; img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".mjs": "text/javascript"}
TYPES[".wasm"] = "application/wasm"
PROGRESS_BYTES, RESULT_BYTES = 4096, 1 << 26
START_S = 10.0


def require_server() -> None:
    """InputError, with the extra, where the packages are not there that serve a page."""
    try:
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        name = "uvicorn" if "uvicorn" in str(error) else "starlette"
        raise InputError(f"--device browser {needs(name, 'browser', error=error)}") from error


def bound(host: str, port: int) -> socket.socket:
    """A socket at the address. InputError where it cannot be had."""
    made = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind((host, port))
    except OSError as error:
        made.close()
        raise InputError(f"--device browser: cannot listen on {host}:{port}: {error.strerror}") from error
    return made


def place_of(url: str) -> tuple[str | None, int | None]:
    """Host and port as browsers write them in an origin, whatever they were typed as."""
    try:
        found = urlsplit(url)
        return found.hostname, found.port or {"https": 443}.get(found.scheme, 80)
    except ValueError:
        return None, None


@dataclass
class PageState:
    """What the page has said so far. beat: when it was last heard of, monotonic; gone: why it will not go on."""

    opened: bool = False
    what: str = ""
    share: float = 0.0
    beat: float = 0.0
    hidden: bool = False
    gone: str = ""
    done: bool = False


@dataclass
class PageJob:
    """job: as web/src/bench/plan.ts has it. files: by the paths below the job. arrays: names and sizes in bytes of what
    it may hand in, into the folder `results`.
    """

    pages: Path
    job: dict[str, Any]
    files: Mapping[str, Path]
    arrays: Mapping[str, int]
    results: Path
    state: PageState = field(default_factory=PageState)


class PageServer:
    """Serves while it is open, in a thread of its own. address: what the page's link names."""

    def __init__(self, work: PageJob, host: str, port: int, address: str) -> None:
        import uvicorn

        self.work, self.token = work, secrets.token_urlsafe(18)
        self._socket = bound(host, port)
        shown = f"[{address}]" if ":" in address else address
        self.origin = f"http://{shown}:{self._socket.getsockname()[1]}"
        config = uvicorn.Config(
            self._application(), log_level="critical", access_log=False, lifespan="off", server_header=False
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([self._socket],), daemon=True)

    @property
    def link(self) -> str:
        """What the browser opens."""
        return f"{self.origin}/#{self.token}"

    def __enter__(self) -> PageServer:
        self._thread.start()
        until = time.monotonic() + START_S
        while not self._server.started:
            if time.monotonic() > until or not self._thread.is_alive():
                raise DeviceLost("the page's server did not start")
            time.sleep(0.01)
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = self._server.force_exit = True
        self._thread.join(START_S)
        self._socket.close()

    def _application(self) -> Any:
        from starlette.applications import Starlette
        from starlette.requests import Request
        from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response
        from starlette.routing import Route

        work, state = self.work, self.work.state
        served = {path.relative_to(work.pages).as_posix(): path for path in work.pages.rglob("*") if path.is_file()}

        def refused(status: int, why: str) -> Response:
            return PlainTextResponse(why, status, headers=HEADERS)

        async def page(request: Request) -> Response:
            path = served.get(request.path_params["path"] or "index.html")
            if path is None:
                return refused(404, "no such file")
            return FileResponse(path, headers=HEADERS, media_type=TYPES.get(path.suffix))

        def guarded(answer: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
            async def checked(request: Request) -> Response:
                given = request.headers.get("authorization", "").encode()
                if not secrets.compare_digest(given, f"Bearer {self.token}".encode()):
                    return refused(401, "expected the token of the link")
                origin = request.headers.get("origin")
                if origin is not None and place_of(origin) != place_of(f"//{request.headers.get('host', '')}"):
                    return refused(403, "expected to be asked by the page that this server gave")
                state.beat = time.monotonic()
                return await answer(request)

            return checked

        async def job(request: Request) -> Response:
            if state.opened:
                return refused(409, "this link has been opened before: run the bench again for another")
            state.opened = True
            return JSONResponse(work.job, headers=HEADERS)

        async def given(request: Request) -> Response:
            path = work.files.get(request.path_params["path"])
            return refused(404, "no such file") if path is None else FileResponse(path, headers=HEADERS)

        async def body(request: Request, most: int) -> bytes | None:
            parts, size = [], 0
            async for part in request.stream():
                size += len(part)
                if size > most:
                    return None
                parts.append(part)
            return b"".join(parts)

        async def progress(request: Request) -> Response:
            content = await body(request, PROGRESS_BYTES)
            try:
                told = json.loads(content or b"")
                what, share, hidden = told["what"], float(told["share"]), told["hidden"] is True
            except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
                return refused(400, "expected what, share and hidden")
            if not isinstance(what, str) or not 0 <= share <= 1:
                return refused(400, "expected what goes on, and a share of 0 to 1")
            state.what, state.share = readable(what)[:200], share
            state.hidden |= hidden
            return Response(status_code=204, headers=HEADERS)

        async def gone(request: Request) -> Response:
            content = await body(request, PROGRESS_BYTES)
            if not state.done:
                state.gone = readable((content or b"no reason given").decode(errors="replace").strip())[:300]
            return Response(status_code=204, headers=HEADERS)

        async def array(request: Request) -> Response:
            name = request.path_params["name"]
            if name not in work.arrays:
                return refused(404, "no such array")
            content = await body(request, work.arrays[name])
            if content is None:
                return refused(413, f"expected at most {work.arrays[name]} bytes")
            (work.results / name).write_bytes(content)
            return Response(status_code=204, headers=HEADERS)

        async def result(request: Request) -> Response:
            content = await body(request, RESULT_BYTES)
            if content is None:
                return refused(413, f"expected at most {RESULT_BYTES} bytes")
            (work.results / RESULT).write_bytes(content)
            state.done = True
            return Response(status_code=204, headers=HEADERS)

        routes = [
            Route("/job/job.json", guarded(job)),
            Route("/job/progress", guarded(progress), methods=["POST"]),
            Route("/job/gone", guarded(gone), methods=["POST"]),
            Route("/job/result", guarded(result), methods=["POST"]),
            Route("/job/arrays/{name}", guarded(array), methods=["POST"]),
            Route("/job/{path:path}", guarded(given)),
            Route("/{path:path}", page),
        ]
        return Starlette(routes=routes)
