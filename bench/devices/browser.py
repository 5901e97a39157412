"""Browsers: how one is named, where its page is served, and the headless one that is started here."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ...runtimes.core.errors import InputError
from .device import end, failure

# Programs by the name that follows "browser:", as systems call them.
PROGRAMS = {
    "chromium": ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable"),
    "firefox": ("firefox-esr", "firefox"),
}
NAME = re.compile(r"browser(?::(?P<program>[a-z]+))?(?:@(?P<host>\[[0-9A-Fa-f:.]+\]|[\w.-]+)(?::(?P<port>\d{1,5}))?)?")
LOOPBACK = "127.0.0.1"
DOOR = "<!doctype html><title>EdgeRecall</title><script>location.replace({})</script>"
TAIL = 4096
GPUS = ("dri/renderD*", "nvidia[0-9]*")  # in Linux's /dev


@dataclass(frozen=True)
class Browser:
    """`browser[:chromium|:firefox][@HOST[:PORT]]`. program: to be started here, "" where somebody opens the link.

    host, port: where the page is served; port 0 takes a free one.
    """

    name: str
    program: str
    host: str
    port: int

    @property
    def address(self) -> str:
        """What a browser is to go to: of a host that stands for all, this machine's own."""
        return own_address() if self.host in ("0.0.0.0", "::") else self.host


def parse_browser(name: str) -> Browser:
    """InputError for another form, or a browser that is not known."""
    match = NAME.fullmatch(name)
    if match is None or (match["program"] or "chromium") not in PROGRAMS or int(match["port"] or 0) > 65535:
        known = "|:".join(PROGRAMS)
        raise InputError(f"--device {name}: expected browser[:{known}][@HOST[:PORT]]")
    host = (match["host"] or LOOPBACK).strip("[]")
    return Browser(name, match["program"] or "", host, int(match["port"] or 0))


def own_address() -> str:
    """This machine's address on its network; no packet is sent. The loopback address where it has none."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))
        return str(probe.getsockname()[0])
    return LOOPBACK


def find_browser(kind: str) -> str:
    """The program's path; the environment's EDGERECALL_CHROMIUM or EDGERECALL_FIREFOX names another. InputError."""
    given = os.environ.get(f"EDGERECALL_{kind.upper()}")
    for program in [given] if given else PROGRAMS[kind]:
        if path := shutil.which(program):
            return path
    package = PROGRAMS[kind][0]
    raise InputError(f"browser:{kind}: found no {given or package}: on Debian 'apt-get install {package}'")


def command_line(kind: str, program: str, profile: Path, url: str, gpu: bool = False) -> list[str]:
    """Headless, with nothing of the user's own browser. gpu: with WebGPU, on the processor where there is no GPU."""
    if kind == "firefox":
        return [program, "--headless", "--no-remote", "--profile", str(profile), url]
    options = ["--headless=new", "--no-first-run", "--disable-extensions", "--disable-background-networking"]
    if os.geteuid() == 0:
        options.append("--no-sandbox")  # it refuses to start as root with one
    if gpu:
        options += ["--enable-unsafe-webgpu", "--enable-features=Vulkan"]  # on Linux it is not yet on by itself
        if sys.platform == "linux" and not any(path for names in GPUS for path in Path("/dev").glob(names)):
            options.append("--use-webgpu-adapter=swiftshader")
    return [program, *options, f"--user-data-dir={profile}", url]


class Started:
    """A browser that runs here."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self._process, self._log = process, log

    @property
    def ended(self) -> str | None:
        """Why it is no longer there."""
        code = self._process.poll()
        return None if code is None else failure(code, self._log.read_text(errors="replace")[-TAIL:])


@contextlib.contextmanager
def started(kind: str, url: str, gpu: bool = False) -> Iterator[Started]:
    """A headless browser at a page, ended with all its processes when the block ends."""
    program = find_browser(kind)
    with tempfile.TemporaryDirectory(prefix="edgerecall-browser-", ignore_cleanup_errors=True) as folder:
        profile, log, door = Path(folder) / "profile", Path(folder) / "log", Path(folder) / "door.html"
        profile.mkdir()
        door.write_text(DOOR.format(json.dumps(url)))  # command lines are everybody's to read, this folder is not
        environment = {**os.environ, "HOME": folder, "MOZ_HEADLESS": "1"}
        with log.open("wb") as stream:
            process = subprocess.Popen(
                command_line(kind, program, profile, door.as_uri(), gpu),
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
            )
        try:
            yield Started(process, log)
        finally:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)  # what outlives the first process too
            end(process)
