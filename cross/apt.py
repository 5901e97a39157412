"""Debian packages and sources for another architecture, without touching this machine's own package state."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from ..runtimes.core.errors import InputError, RuntimeFailed
from .commands import run_logged

FIELDS = "$(ORIGIN)|$(REPO_URI)|$(RELEASE)"
UPDATES = ("-security", "-updates")
UPDATE_TRIES, UPDATE_PAUSE_S = 3, 5.0
# Distributions that are known: their components, and the keys of their repositories.
DISTRIBUTIONS = {
    "Debian": ("main", Path("/usr/share/keyrings/debian-archive-keyring.gpg")),
    "Ubuntu": ("main universe", Path("/usr/share/keyrings/ubuntu-archive-keyring.gpg")),
}


def own_sources(release: str = "") -> list[str]:
    """This machine's repositories of Debian or Ubuntu, for packages and sources, as a sources.list has them.

    release: Debian's of that name in place of the machine's own. InputError if there are none.
    """
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
    lines = []
    for name, (components, keys) in DISTRIBUTIONS.items():
        by_place = {f for f in found if re.search(rf"/{name.lower()}(-security|-ports)?$", f[1].rstrip("/"))}
        options = f" [signed-by={keys}]" if keys.is_file() else ""
        for _, uri, suite in sorted({f for f in found if f[0] == name} or by_place):
            lines += [f"{kind}{options} {uri} {suite} {components}" for kind in ("deb", "deb-src")]
    if release:
        main = [line for line in lines if re.search(r"/debian/? ", line) and not release_of(line).endswith(UPDATES)]
        lines = list(dict.fromkeys(line.replace(f" {release_of(line)} ", f" {release} ") for line in main))
    if not lines:
        raise InputError("the libraries come from Debian's packages, and this machine's apt has no Debian repository")
    return lines


def own_architecture() -> str:
    """`amd64`, of this machine's packages. InputError where dpkg does not tell."""
    try:
        told = subprocess.run(["dpkg", "--print-architecture"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise InputError("the libraries come from Debian's packages: this machine has no dpkg") from error
    return told.stdout.strip()


def release_of(line: str) -> str:
    """`bookworm-updates`, of a line of a sources.list."""
    return re.sub(r"\[.*\]", "", line).split()[2]


class PrivateApt:
    """apt with its state in a folder, for one architecture (`arm64`), and one release. Needs no privileges."""

    def __init__(
        self, folder: Path, architecture: str, logs: Path, say: Callable[[str], object], release: str = ""
    ) -> None:
        self.folder, self.architecture, self.logs, self.say = folder, architecture, logs, say
        for name in ("lists/partial", "cache/archives/partial"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        sources = folder / "sources.list"
        sources.write_text("\n".join(own_sources(release)) + "\n")
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
        lines = [line for line in sources.read_text().splitlines() if not release_of(line).endswith(UPDATES)]
        sources.write_text("\n".join(lines) + "\n")
        self._run("apt-get update", "update", "-q")

    def known(self, *packages: str) -> str:
        """The first of these packages that there is; the last, when there is none."""
        return next((name for name in packages if self._described(name)), packages[-1])

    def with_libraries(self, packages: Sequence[str]) -> list[str]:
        """Development packages and, for each, what it wants of its very own version: the shared libraries."""
        wanted = list(packages)
        for name in wanted:
            depends = re.search(r"^Depends: (.*)$", self._described(name), re.MULTILINE)
            for library in re.findall(r"([a-z0-9.+-]+) \(= ", depends[1] if depends else ""):
                wanted += [] if library in wanted else [library]
        return wanted

    def _described(self, package: str) -> str:
        command = ["apt-cache", *self._options, "show", "--no-all-versions", package]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout

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
