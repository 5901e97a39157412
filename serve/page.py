"""The web page at `/`, and the gallery's pictures that it shows."""

from __future__ import annotations

import asyncio
import html
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from importlib import resources
from pathlib import Path
from string import Template

from starlette.requests import Request
from starlette.responses import Response

from ..runtimes.core.errors import ImageError, InputError, RuntimeFailed
from .host import Host, Refused
from .service import Unavailable
from .site.thumbnails import thumbnail

KEPT = 512  # pictures
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src blob: data:;"
    " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}
KINDS = {".html": "text/html; charset=utf-8", ".css": "text/css", ".js": "text/javascript"}


class Page:
    """The page of a host. pictures: the folder in which the gallery's ids name images; None: none are shown."""

    def __init__(self, host: Host, pictures: Path | None = None) -> None:
        self.host = host
        self._root = None if pictures is None else pictures.resolve()
        folder = resources.files(__package__) / "web"
        self._files = {
            one.name: one.read_text(encoding="utf-8") for one in folder.iterdir() if Path(one.name).suffix in KINDS
        }
        name = html.escape(host.settings.name)
        self._files["index.html"] = Template(self._files["index.html"]).substitute(model=name)
        self._decoding = ThreadPoolExecutor(2, "serve-pictures")
        self._thumbnail = lru_cache(KEPT)(thumbnail)

    async def index(self, request: Request) -> Response:
        """The page itself."""
        return self._response("index.html")

    async def file(self, request: Request) -> Response:
        """What it is made of."""
        name = request.path_params["file"]
        if name not in self._files:
            raise Refused(404, f"no file {name!r:.80} here")
        return self._response(name)

    def _response(self, name: str) -> Response:
        return Response(self._files[name], headers={**HEADERS, "content-type": KINDS[Path(name).suffix]})

    async def picture(self, request: Request) -> Response:
        """A gallery's image, small and without what else its file tells, as JPEG."""
        loop = asyncio.get_running_loop()
        body = await loop.run_in_executor(self._decoding, self.small, request.path_params["id"])
        return Response(body, headers={**HEADERS, "content-type": "image/jpeg", "cache-control": "private, max-age=60"})

    def small(self, identity: str) -> bytes:
        """The picture of a row. Refused where there is none, or its file is not inside the folder."""
        missing = Refused(404, f"no picture of {identity!r:.200} here")
        gallery = self.host.service.gallery
        if self._root is None or gallery is None:
            raise missing
        try:
            if not gallery.known([identity]):
                raise missing
        except RuntimeFailed as error:
            raise Unavailable("the gallery's database does not answer") from error
        try:
            path = (self._root / identity).resolve()
            if not path.is_relative_to(self._root) or not path.is_file():
                raise missing
            return self._thumbnail(path, path.stat().st_mtime_ns)
        except (OSError, ValueError, ImageError, InputError):
            raise missing from None
