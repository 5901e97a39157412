"""Files out of packages on PyPI: runtimes' libraries from their wheels, ncnn's source from its sdist."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from ..runtimes.core.errors import InputError
from ..runtimes.core.files import unpack_tar
from ..runtimes.core.package_folders import package_folders
from ..runtimes.core.targets import find_program
from .commands import run_logged
from .runtimes import buildable

LICENCES = ("LICENSE", "ThirdPartyNotices", "third-party-programs")


def same_version(package: str) -> str:
    """A requirement for the version installed here, so that device and host run the same; else for any."""
    try:
        return f"{package}=={version(package)}"
    except PackageNotFoundError:
        return package


def pip_download(requirement: str, into: Path, log: Path, *options: str) -> Path:
    """One file of one package, without what it needs, into an empty folder."""
    into.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "pip", "download", "--disable-pip-version-check", "--no-deps", "--dest", into]
    run_logged(f"downloading {requirement}", [*command, *options, requirement], log)
    found = list(into.iterdir())
    if len(found) != 1:
        raise InputError(f"pip downloaded no file of {requirement}; see {log}")
    return found[0]


def runtime_libraries(runtime: str, platforms: Sequence[str], into: Path, logs: Path) -> list[str]:
    """Unpacks a runtime's shared libraries and licences from its wheel for a platform; their names."""
    described = buildable()[runtime].library
    parts = described.parts if described else ()
    options = ["--only-binary=:all:", *(part for name in platforms for part in ("--platform", name))]
    into.mkdir(parents=True)
    names = []
    with tempfile.TemporaryDirectory(prefix="edgerecall-wheel-") as work:
        wheel = pip_download(same_version(runtime), Path(work), logs / f"pip-{runtime}.log", *options)
        with zipfile.ZipFile(wheel) as archive:
            for member in archive.namelist():
                name = Path(member).name
                library = any(part in member for part in parts) and ".so" in name
                if library or any(mark in name for mark in LICENCES):
                    (into / name).write_bytes(archive.read(member))
                    names += [name] if library else []
    if not names:
        raise InputError(f"{wheel.name} holds no library of {runtime}")
    return names


def sdist_url(requirement: str, log: Path) -> str:
    """Where a pinned package's source archive lies, with its hash, as uv locks it (PEP 751); nothing is built."""
    uv = find_program("uv")
    if uv is None:
        raise InputError("needs uv: run \"pip install 'edgerecall[cross]'\"")
    with tempfile.TemporaryDirectory(prefix="edgerecall-lock-") as work:
        asked, lock = Path(work) / "requirements.in", Path(work) / "pylock.toml"
        asked.write_text(requirement + "\n")
        command = [uv, "pip", "compile", asked, "--no-deps", "--no-header", "--python", sys.executable, *own_index()]
        run_logged(f"locking {requirement}", [*command, "--format", "pylock.toml", "--output-file", lock], log)
        text = lock.read_text()
    found = re.search(r'^sdist = \{ url = "([^"]+)".*sha256 = "([0-9a-f]{64})"', text, re.MULTILINE)
    if found is None:
        raise InputError(f"{requirement}: the package index has no source archive of it; see {log}")
    return f"{found[1]}#sha256={found[2]}"


def own_index() -> list[str]:
    """uv's options for the package index that pip is configured for, if one is."""
    command = [sys.executable, "-m", "pip", "config", "get", "global.index-url"]
    url = os.environ.get("PIP_INDEX_URL") or subprocess.run(command, capture_output=True, text=True, check=False).stdout
    return ["--default-index", url.strip()] if url.strip() else []


def ncnn_source(into: Path, logs: Path) -> Path:
    """ncnn's source folder. Its sdist says today's date for its version, so that pip takes it by its address alone."""
    url = sdist_url(same_version("ncnn"), logs / "uv-ncnn.log")
    sdist = pip_download(f"ncnn @ {url}", into / "sdist", logs / "pip-ncnn.log")
    with tarfile.open(sdist) as archive:
        unpack_tar(archive, into)
    return into / sdist.name.removesuffix(".tar.gz")


def zig_folder() -> Path:
    """The package ziglang, with the program `zig` in it. InputError when it is not installed."""
    for place in package_folders("ziglang"):
        if (place / "zig").is_file():
            return place
    raise InputError("needs zig: run \"pip install 'edgerecall[cross]'\"")
