"""What the core is built with on this very machine: `python -m edgerecall.cross.host [--zig]` prints CMake's
options, one a line. Runs before the package is installed (scripts/bootstrap.py), by the interpreter it is for.
"""

from __future__ import annotations

import ctypes
import os
import platform
import sys
import sysconfig
import tempfile
from pathlib import Path

from ..runtimes.core.errors import EdgeRecallError
from ..runtimes.sidecars.sidecar import STARTED
from .sysroot import make_host_root
from .toolchain import zig_options

TRIPLET = f"{platform.machine()}-linux-gnu"
VERSION = f"python{sys.version_info[0]}.{sys.version_info[1]}"
TOOLCHAINS = Path(__file__).resolve().parents[1] / "cmake" / "toolchains"


def host_root() -> Path:
    """The private root, with this interpreter's headers where it came without."""
    headers = not (Path(sysconfig.get_path("include")) / "Python.h").is_file()
    with tempfile.TemporaryDirectory(prefix="edgerecall-logs-") as logs:
        return make_host_root(VERSION if headers else "", Path(logs), lambda text: sys.stderr.write(f"setup: {text}\n"))


def host_options(zig: bool) -> list[str]:
    """CMake's options. zig: compile with it, against the C library that runs here."""
    usr = host_root() / "usr"
    flags = " ".join(f'-isystem "{folder}"' for folder in (usr / "include" / TRIPLET, usr / "include"))
    options = [f"-DCMAKE_LIBRARY_ARCHITECTURE={TRIPLET}", f"-DCMAKE_CXX_FLAGS={flags}"]
    if (usr / "include" / VERSION).is_dir():
        options.append(f"-DPython_INCLUDE_DIR={usr / 'include' / VERSION}")
    if not zig:
        return [*options, f"-DCMAKE_PREFIX_PATH={usr}"]
    glibc = (os.confstr("CS_GNU_LIBC_VERSION") or "glibc 2.28").split()[1]
    found = [f"-DCMAKE_FIND_ROOT_PATH={usr}", f"-DCMAKE_BUILD_RPATH={usr / 'lib' / TRIPLET}"]
    return [*options, *zig_options(f"{TRIPLET}.{glibc}", TOOLCHAINS), *found]


def bring_openmp() -> None:
    """Has every interpreter of this environment load OpenMP's library at its start, where the system has none.

    PaddlePaddle's libraries look for it in the system's folders alone, unless it is loaded already.
    """
    try:
        ctypes.CDLL("libgomp.so.1")
    except OSError:
        library = host_root() / "usr" / "lib" / TRIPLET / "libgomp.so.1"
        start = Path(sysconfig.get_path("purelib")) / f"{STARTED}openmp.pth"
        path = repr(str(library))
        start.write_text(f"import ctypes, os; os.path.exists({path}) and ctypes.CDLL({path})\n")


def main() -> None:
    """Prints them, or does what `--openmp` says; exit code 2 with one line where they cannot be had."""
    try:
        if "--openmp" in sys.argv:
            return bring_openmp()
        sys.stdout.write("\n".join(host_options("--zig" in sys.argv)) + "\n")
    except EdgeRecallError as error:
        sys.stderr.write(f"setup: {error}\n")
        raise SystemExit(2) from None
    return None


if __name__ == "__main__":
    main()
