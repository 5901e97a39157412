"""Debian packages and sources for another architecture, without touching this machine's own package state."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from ..runtimes.errors import InputError, RuntimeFailed
from .commands import run_logged

FIELDS = "$(ORIGIN)|$(REPO_URI)|$(RELEASE)"
UPDATES = ("-security", "-updates")
UPDATE_TRIES, UPDATE_PAUSE_S = 3, 5.0
KEYS = Path("/usr/share/keyrings/debian-archive-keyring.gpg")


def own_sources() -> list[str]:
    """This machine's Debian repositories, for packages and sources, as a sources.list has them. InputError if none."""
    if shutil.which("apt-get") is None:
        raise InputError("the libraries come from Debian's packages: run this on Debian, or in a container of it")
    listed = subprocess.run(
        ["apt-get", "indextargets", "--format", FIELDS, "Created-By: Packages"],
        capture_output=True,
        text=True,
        check=False,
    ).stdout.splitlines()
    found = {tuple(line.split("|")) for line in listed if line.count("|") == 2}
    # The origin is known once the machine's own lists were read; before that, the repository's name has to do.
    ours = {f for f in found if f[0] == "Debian"} or {f for f in found if "/debian" in f[1].rstrip("/")}
    lines = []
    options = f" [signed-by={KEYS}]" if KEYS.is_file() else ""
    for _, uri, release in sorted(ours):
        lines += [f"{kind}{options} {uri} {release} main" for kind in ("deb", "deb-src")]
    if not lines:
        raise InputError("the libraries come from Debian's packages, and this machine's apt has no Debian repository")
    return lines


class PrivateApt:
    """apt with its state in a folder, for one architecture (`arm64`). Needs no privileges."""

    def __init__(self, folder: Path, architecture: str, logs: Path, say: Callable[[str], None]) -> None:
        self.folder, self.architecture, self.logs, self.say = folder, architecture, logs, say
        for name in ("lists/partial", "cache/archives/partial"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        sources = folder / "sources.list"
        sources.write_text("\n".join(own_sources()) + "\n")
        settings = {
            "Dir::State": folder,
            "Dir::State::lists": folder / "lists",
            "Dir::State::status": "/dev/null",
            "Dir::Cache": folder / "cache",
            "Dir::Etc::sourcelist": sources,
            "Dir::Etc::sourceparts": "/dev/null",
            "APT::Architecture": architecture,
            "APT::Architectures": architecture,
            "APT::Sandbox::User": "root",
            "Acquire::Retries": "2",
        }
        self._options = [part for key, value in settings.items() for part in ("-o", f"{key}={value}")]

    def _run(self, title: str, *arguments: str, folder: Path | None = None) -> None:
        run_logged(title, ["apt-get", *self._options, *arguments], self.logs / f"apt-{arguments[0]}.log", folder)

    def update(self) -> None:
        """Reads the repositories' lists. A mirror in the middle of its own update is asked again, then done without."""
        for _ in range(UPDATE_TRIES - 1):
            try:
                return self._run("apt-get update", "update", "-q")
            except RuntimeFailed:
                time.sleep(UPDATE_PAUSE_S)
        return self._release_only()

    def _release_only(self) -> None:
        """Leaves out the security updates, which not every mirror holds whole."""
        self.say("warning: Debian's security updates cannot be read here; the libraries are the release's own")
        sources = self.folder / "sources.list"
        lines = [line for line in sources.read_text().splitlines() if not line.split()[-2].endswith(UPDATES)]
        sources.write_text("\n".join(lines) + "\n")
        self._run("apt-get update", "update", "-q")

    def unpack(self, packages: Sequence[str], root: Path) -> None:
        """Downloads packages and unpacks them into a root, without their scripts."""
        place = self.folder / "packages"
        place.mkdir(exist_ok=True)
        self._run("apt-get download", "download", "-q", *packages, folder=place)
        for package in sorted(place.glob("*.deb")):
            run_logged(f"dpkg {package.name}", ["dpkg", "-x", package, root], self.logs / "dpkg.log")
        shutil.rmtree(place)

    def source(self, package: str, into: Path) -> Path:
        """A source package, unpacked and patched as Debian has it."""
        into.mkdir(parents=True, exist_ok=True)
        fetch = partial(self._run, f"apt-get source {package}", "source", "-q", "--download-only", package, folder=into)
        try:
            fetch()
        except RuntimeFailed:
            self._release_only()
            for part in into.iterdir():
                part.unlink()
            fetch()
        (description,) = into.glob("*.dsc")
        target = into / package
        command = ["dpkg-source", "--no-check", "-x", description, target]
        run_logged(f"dpkg-source {package}", command, self.logs / "dpkg-source.log")
        return target
