"""An older Python out of an older Debian release's packages, for the sidecars of a machine that has none."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from ..runtimes.core.errors import EdgeRecallError
from ..runtimes.core.targets import cache_dir
from ..runtimes.sidecars.interpreters import runs, venv_probe
from .apt import own_architecture
from .sysroot import private_root

# Those whose libraries newer releases still have. Python 3.9's OpenSSL is gone from them.
RELEASES = {"3.11": "bookworm"}
PACKAGES = ("python{}-minimal", "libpython{}-minimal", "libpython{}-stdlib")


def debian_python(versions: Sequence[str], say: Callable[[str], object]) -> str | None:
    """An interpreter of one of these versions, unpacked into a private folder; it has venv, and no pip of its own.

    None where the machine is no Debian, or its mirror has not got it.
    """
    for version in versions:
        python = cache_dir() / f"python{version}" / "usr" / "bin" / f"python{version}"
        probe = venv_probe([version], "venv, ssl, ctypes, lzma")
        if version not in RELEASES:
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
    """Downloads the interpreter's packages of its release into a new folder, in place of one that does not run."""
    shutil.rmtree(folder, ignore_errors=True)
    with (
        tempfile.TemporaryDirectory(prefix="edgerecall-logs-") as logs,
        private_root(folder, version, own_architecture(), Path(logs), say, RELEASES[version]) as made,
    ):
        if made is not None:
            apt, root = made
            apt.unpack([package.format(version) for package in PACKAGES], root)
