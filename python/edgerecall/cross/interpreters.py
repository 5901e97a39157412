"""An older Python out of an older Debian release's packages, for the sidecars of a machine that has none."""

from __future__ import annotations

import platform
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from ..runtimes.errors import EdgeRecallError
from ..runtimes.files import atomic_folder
from ..runtimes.interpreters import runs, venv_probe
from ..runtimes.targets import cache_dir
from .apt import PrivateApt

# Those whose libraries newer releases still have. Python 3.9's OpenSSL is gone from them.
RELEASES = {"3.11": "bookworm"}
PACKAGES = ("python{}-minimal", "libpython{}-minimal", "libpython{}-stdlib")
MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}
STAMP = "edgerecall-python"


def debian_python(versions: Sequence[str], say: Callable[[str], object]) -> str | None:
    """An interpreter of one of these versions, unpacked into a private folder; it has venv, and no pip of its own.

    None where the machine is no Debian, or its mirror has not got it.
    """
    for version in versions:
        python = cache_dir() / f"python{version}" / "usr" / "bin" / f"python{version}"
        probe = venv_probe([version], "venv, ssl, ctypes, lzma")
        if version not in RELEASES or platform.machine() not in MACHINES:
            continue
        if not runs(python, probe):
            try:
                unpack(version, python.parents[2], say)
            except EdgeRecallError as error:
                say(f"no Python {version} of Debian {RELEASES[version]}: {error}")
                continue
        if runs(python, probe):
            return str(python)
    return None


def unpack(version: str, folder: Path, say: Callable[[str], object]) -> None:
    """Downloads the interpreter's packages of its release into a new folder."""
    with tempfile.TemporaryDirectory(prefix="edgerecall-apt-") as name:
        state = Path(name)
        apt = PrivateApt(state / "apt", MACHINES[platform.machine()], state / "logs", say, RELEASES[version])
        with atomic_folder(folder, STAMP) as root:
            apt.update()
            apt.unpack([package.format(version) for package in PACKAGES], root)
            (root / STAMP).write_text(version)
