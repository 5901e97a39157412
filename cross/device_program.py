"""`edgerecall-device` of an installed package: hands over to the C++ program, with the runtimes of this environment."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import NoReturn

PROGRAM = Path(__file__).resolve().parents[1] / "bin" / "edgerecall-device"


def main() -> NoReturn:
    """Replaces this process; exit code 2 where the package was built without the program."""
    from ..runtimes.backends.cpp_backends import BACKENDS
    from ..runtimes.core.package_folders import package_library

    if not PROGRAM.is_file():
        sys.stderr.write(
            "edgerecall-device: this installation was built from source, without the program:"
            " install a wheel, or run 'edgerecall cross' and take the program out of the archive in dist/\n"
        )
        raise SystemExit(2)
    for backend in BACKENDS:
        library, package = backend.library, backend.package
        if library and package and (found := package_library(package.module, library.folder, library.stem)):
            os.environ.setdefault(library.variable, found)
    try:
        os.execv(PROGRAM, [str(PROGRAM), *sys.argv[1:]])
    except OSError as error:
        sys.stderr.write(f"edgerecall-device: {PROGRAM} cannot be run here: {error.strerror}\n")
        raise SystemExit(2) from None
