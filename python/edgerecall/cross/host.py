"""What the core is built with on this very machine: `python -m edgerecall.cross.host [--zig]` prints CMake's
options, one a line. Runs before the package is installed (scripts/bootstrap.py), by the interpreter it is for.
"""

from __future__ import annotations

import os
import platform
import sys
import sysconfig
import tempfile
from pathlib import Path

from ..runtimes.errors import EdgeRecallError
from .sysroot import make_host_root
from .toolchain import zig_options

TOOLCHAINS = Path(__file__).resolve().parents[3] / "cmake" / "toolchains"


def host_options(zig: bool) -> list[str]:
    """The core's libraries, and this interpreter's headers where it came without, from a private root.

    zig: compile with it, against the C library that runs here.
    """
    machine = platform.machine()
    triplet = f"{machine}-linux-gnu"
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    headers = not (Path(sysconfig.get_path("include")) / "Python.h").is_file()
    with tempfile.TemporaryDirectory(prefix="edgerecall-logs-") as logs:
        root = make_host_root(version if headers else "", Path(logs), lambda text: sys.stderr.write(f"setup: {text}\n"))
    usr = root / "usr"
    flags = f"-isystem {usr / 'include' / triplet} -isystem {usr / 'include'}"
    options = [f"-DCMAKE_LIBRARY_ARCHITECTURE={triplet}", f"-DCMAKE_CXX_FLAGS={flags}"]
    if headers:
        options.append(f"-DPython_INCLUDE_DIR={usr / 'include' / version}")
    if not zig:
        return [*options, f"-DCMAKE_PREFIX_PATH={usr}"]
    glibc = (os.confstr("CS_GNU_LIBC_VERSION") or "glibc 2.28").split()[1]
    found = [f"-DCMAKE_FIND_ROOT_PATH={usr}", f"-DCMAKE_BUILD_RPATH={usr / 'lib' / triplet}"]
    return [*options, *zig_options(f"{triplet}.{glibc}", TOOLCHAINS), *found]


def main() -> None:
    """Prints them; exit code 2 with one line where they cannot be had."""
    try:
        sys.stdout.write("\n".join(host_options("--zig" in sys.argv)) + "\n")
    except EdgeRecallError as error:
        sys.stderr.write(f"setup: {error}\n")
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
