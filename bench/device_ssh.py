"""A machine over ssh, by the system's own ssh and scp with the user's configuration."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import urlsplit

from ..runtimes.errors import InputError
from .device import Device, quoted

DEFAULT_FOLDER = ".cache/edgerecall/bench"  # from the home folder there
CONFIG = "EDGERECALL_SSH_CONFIG"
# A host that went away is noticed within 15 s; nothing is ever asked of the user.
OPTIONS = ("BatchMode=yes", "ConnectTimeout=10", "ServerAliveInterval=5", "ServerAliveCountMax=3")


class SshDevice(Device):
    """`ssh://[USER@]HOST[:PORT][/FOLDER]`, the folder absolute. EDGERECALL_SSH_CONFIG: another configuration file."""

    def __init__(self, name: str) -> None:
        parts = urlsplit(name)
        try:
            host, port = parts.hostname, parts.port
        except ValueError as error:
            raise InputError(f"--device {name}: {error}") from error
        if not host or host.startswith("-") or (parts.username or "").startswith("-"):
            raise InputError(f"--device {name}: expected ssh://USER@HOST, a port and a folder if need be")
        self._host = f"{parts.username}@{host}" if parts.username else host
        config = os.environ.get(CONFIG)
        shared = [*(["-F", config] if config else []), *(part for option in OPTIONS for part in ("-o", option))]
        self._ssh = ["ssh", *shared, *(["-p", str(port)] if port else [])]
        self._scp = ["scp", "-q", "-r", *shared, *(["-P", str(port)] if port else [])]
        super().__init__(f"ssh://{parts.netloc}", parts.path if len(parts.path) > 1 else DEFAULT_FOLDER)

    def command(self, script: str) -> list[str]:
        return [*self._ssh, "--", self._host, f"sh -c {quoted(script)}"]

    def _place(self, path: str) -> str:
        host = self._host
        user, at, bare = host.rpartition("@")
        return f"{user}{at}[{bare}]:{path}" if ":" in bare else f"{host}:{path}"

    def push(self, folder: Path) -> None:
        self.shell(f"mkdir -p {quoted(self.root)}", 60)
        entries = [str(path) for path in sorted(folder.iterdir())]
        if entries:
            self.transfer(*self._scp, "--", *entries, self._place(self.root))

    def pull(self, name: str, folder: Path) -> None:
        self.transfer(*self._scp, "--", self._place(f"{self.root}/{name}"), str(folder))
