"""Static sites and browsers for the tests here."""

from __future__ import annotations

import http.server
import shutil
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import pytest
from playwright.sync_api import Browser, sync_playwright

Serve = Callable[..., tuple[str, Callable[[], None]]]


class Handler(http.server.SimpleHTTPRequestHandler):
    """Files of a folder, under more headers."""

    more: ClassVar[dict[str, str]] = {}
    extensions_map: ClassVar = {
        **http.server.SimpleHTTPRequestHandler.extensions_map,
        ".mjs": "text/javascript",
        ".wasm": "application/wasm",
    }

    def end_headers(self) -> None:
        for name, value in self.more.items():
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, *_: Any) -> None: ...


@pytest.fixture
def serve_folder() -> Iterator[Serve]:
    """Serves a folder under some headers: its URL, and what ends it."""
    ends: list[Callable[[], None]] = []

    def serve(folder: Path, headers: dict[str, str]) -> tuple[str, Callable[[], None]]:
        kind = type("Handler", (Handler,), {"more": headers})
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(kind, directory=str(folder)))
        threading.Thread(target=server.serve_forever, daemon=True).start()

        def end() -> None:
            if end in ends:
                ends.remove(end)
                server.shutdown()
                server.server_close()

        ends.append(end)
        return f"http://127.0.0.1:{server.server_address[1]}/", end

    yield serve
    for end in list(ends):
        end()


@pytest.fixture
def chromium() -> Iterator[Browser]:
    """Headless."""
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        pytest.fail("no chromium: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()
