"""What the core is built with on this very machine: `python -m edgerecall.cross.host [--zig] [--libraries]` prints
CMake's options, one a line. Runs before the package is installed (scripts/bootstrap.py), by the interpreter it is for.
"""

from __future__ import annotations

import os
import platform
import sys
import tempfile
from pathlib import Path

from ..runtimes.errors import EdgeRecallError
from .sysroot import make_host_root
from .toolchain import zig_options

TOOLCHAINS = Path(__file__).resolve().parents[3] / "cmake" / "toolchains"


def host_options(zig: bool, libraries: bool) -> list[str]:
    """zig: compile with it, against the C library that runs here. libraries: from a private root."""
    machine = platform.machine()
    options = []
    if zig:
        glibc = (os.confstr("CS_GNU_LIBC_VERSION") or "glibc 2.28").split()[1]
        options += zig_options(f"{machine}-linux-gnu.{glibc}", TOOLCHAINS)
    if libraries:
        with tempfile.TemporaryDirectory(prefix="edgerecall-logs-") as logs:
            root = make_host_root(Path(logs), lambda text: sys.stderr.write(f"setup: {text}\n")) / "usr"
        found = "CMAKE_FIND_ROOT_PATH" if zig else "CMAKE_PREFIX_PATH"
        triplet = f"{machine}-linux-gnu"
        options += [f"-D{found}={root}", f"-DCMAKE_LIBRARY_ARCHITECTURE={triplet}"]
        if zig:
            options.append(f"-DCMAKE_BUILD_RPATH={root / 'lib' / triplet}")
    return options


def main() -> None:
    """Prints them; exit code 2 with one line where they cannot be had."""
    try:
        sys.stdout.write("\n".join(host_options("--zig" in sys.argv, "--libraries" in sys.argv)) + "\n")
    except EdgeRecallError as error:
        sys.stderr.write(f"setup: {error}\n")
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
