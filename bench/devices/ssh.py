"""A machine over ssh, by the system's own ssh and scp with the user's configuration."""

from __future__ import annotations

import os
import re
from pathlib import Path

from ...runtimes.core.errors import InputError
from .device import QUICK_S, Device, quoted

DEFAULT_FOLDER = ".cache/edgerecall/bench"  # from the home folder there
OWN = "edgerecall-bench"
CONFIG = "EDGERECALL_SSH_CONFIG"
# Names as the user's configuration has them, capitals too; none that ssh could take for an option.
ADDRESS = re.compile(
    r"ssh://(?:(?P<user>[\w.][\w.-]*)@)?(?P<host>[\w.][\w.-]*|\[[0-9A-Fa-f:.%\w]+\])(?::(?P<port>\d{1,5}))?(?P<folder>/[^?#]*)?"
)
# A host that went away is noticed within 15 s; nothing is ever asked of the user.
OPTIONS = ("BatchMode=yes", "ConnectTimeout=10", "ServerAliveInterval=5", "ServerAliveCountMax=3")


class SshDevice(Device):
    """`ssh://[USER@]HOST[:PORT][/FOLDER]`, the folder absolute. EDGERECALL_SSH_CONFIG: another configuration file."""

    def __init__(self, name: str) -> None:
        match = ADDRESS.fullmatch(name)
        if match is None:
            raise InputError(f"--device {name}: expected ssh://[USER@]HOST[:PORT][/FOLDER], no password")
        user, host, port, folder = match["user"], match["host"].strip("[]"), match["port"], match["folder"]
        self._host = f"{user}@{host}" if user else host
        config = os.environ.get(CONFIG)
        shared = [*(["-F", config] if config else []), *(part for option in OPTIONS for part in ("-o", option))]
        self._ssh = ["ssh", *shared, *(["-p", port] if port else [])]
        self._scp = ["scp", "-q", "-r", *shared, *(["-P", port] if port else [])]
        # In a folder of its own there: what is in the user's is not ours to touch.
        super().__init__(name.rstrip("/"), f"{folder.rstrip('/')}/{OWN}" if folder else DEFAULT_FOLDER)

    def command(self, script: str) -> list[str]:
        return [*self._ssh, "--", self._host, f"sh -c {quoted(script)}"]

    def _place(self, path: str) -> str:
        host = self._host
        user, at, bare = host.rpartition("@")
        return f"{user}{at}[{bare}]:{path}" if ":" in bare else f"{host}:{path}"

    def push(self, folder: Path) -> None:
        self.shell(f"mkdir -p {quoted(self.root)}", QUICK_S)
        entries = [str(path) for path in sorted(folder.iterdir())]
        if entries:
            self.transfer(*self._scp, "--", *entries, self._place(self.root))

    def pull(self, name: str, folder: Path) -> None:
        self.transfer(*self._scp, "--", self._place(f"{self.root}/{name}"), str(folder))
