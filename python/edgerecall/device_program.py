"""`edgerecall-device` of an installed package: hands over to the C++ program, with the runtimes of this environment."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import NoReturn

PROGRAM = Path(__file__).resolve().parent / "bin" / "edgerecall-device"
# What the program opens: its variable, the package and the folder in it.
LIBRARIES = (
    ("EDGERECALL_ONNXRUNTIME", "onnxruntime", "capi", "libonnxruntime.so"),
    ("EDGERECALL_OPENVINO", "openvino", "libs", "libopenvino_c.so"),
)


def main() -> NoReturn:
    """Replaces this process; exit code 2 where the package was built without the program."""
    from .runtimes.package_folders import package_folders

    if not PROGRAM.is_file():
        sys.stderr.write(
            "edgerecall-device: this installation was built from source, without the program:"
            " install a wheel, or run 'edgerecall cross' and take the program out of the archive in dist/\n"
        )
        raise SystemExit(2)
    for variable, package, folder, stem in LIBRARIES:
        found = sorted(str(path) for place in package_folders(package) for path in (place / folder).glob(f"{stem}*"))
        if found:
            os.environ.setdefault(variable, found[0])
    try:
        os.execv(PROGRAM, [str(PROGRAM), *sys.argv[1:]])
    except OSError as error:
        sys.stderr.write(f"edgerecall-device: {PROGRAM} cannot be run here: {error.strerror}\n")
        raise SystemExit(2) from None
