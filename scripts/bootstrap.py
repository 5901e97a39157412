"""Sets up the virtual environment, the C++ core and the Lite sidecar. Standard library only; names what is missing.

Usage: python3 scripts/bootstrap.py VENV. Does nothing when all inputs are unchanged since the last success. A working
environment is kept whatever interpreter calls this; remove it to change Python.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VERSIONS = ("3.11", "3.12", "3.10")
PROBE = "import sys, venv, ensurepip; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))"
# What the core is built from: a header that proves the package, how it links, its names on Debian and on Fedora.
LIBRARIES = (
    ("#include <cstdio>\n#include <jpeglib.h>", "-ljpeg", "libjpeg62-turbo-dev", "libjpeg-turbo-devel"),
    ("#include <png.h>", "-lpng", "libpng-dev", "libpng-devel"),
    ("#include <hwy/highway.h>", "-lhwy", "libhwy-dev", "highway-devel"),
    ("#include <nlohmann/json.hpp>", None, "nlohmann-json3-dev", "json-devel"),
    ("#include <doctest/doctest.h>", None, "doctest-dev", "doctest-devel"),
)


def stop(message: str) -> None:
    """Ends with one line."""
    sys.stderr.write(f"setup: {message}\n")
    raise SystemExit(2)


def works(command: list[str]) -> bool:
    """Whether a command runs and succeeds."""
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def find_python() -> str:
    """This interpreter if it fits, else one on PATH or of a version manager."""
    candidates = [sys.executable]
    for version in VERSIONS:
        candidates.append(shutil.which(f"python{version}") or "")
        candidates += sorted(map(str, Path.home().glob(f".pyenv/versions/{version}.*/bin/python")))
    for python in candidates:
        if python and works([python, "-c", PROBE]):
            return python
    stop("needs Python 3.10, 3.11 or 3.12 with venv: on Debian or Ubuntu 'apt-get install python3 python3-venv'")
    return ""


def check_compiler() -> None:
    """A C++17 compiler and the libraries of the core, by compiling and linking a program with each."""
    compiler = os.environ.get("CXX") or next((c for c in ("c++", "g++", "clang++") if shutil.which(c)), None)
    if compiler is None:
        stop("needs a C++17 compiler: on Debian or Ubuntu 'apt-get install g++', on Fedora 'dnf install gcc-c++'")
    with tempfile.TemporaryDirectory() as folder:
        source, program = Path(folder) / "probe.cpp", Path(folder) / "probe"
        source.write_text("int main() { if (int x = 0; x == 0) return 0; }\n")
        level = ["-march=x86-64-v2"] if platform.machine() in ("x86_64", "AMD64") else []
        if not works([str(compiler), "-std=c++17", *level, str(source), "-o", str(program)]):
            stop(f"'{compiler}' does not compile C++17 for x86-64-v2: install g++ 11 or clang 12 or newer, or set CXX")
        missing = []
        for include, link, debian, fedora in LIBRARIES:
            source.write_text(f"{include}\nint main() {{ return 0; }}\n")
            flags = ["-std=c++17", str(source), "-o", str(program), *([link] if link else ["-c"])]
            if not works([str(compiler), *flags]):
                missing.append((debian, fedora))
        if missing:
            stop(
                f"needs development packages: on Debian 'apt-get install {' '.join(d for d, _ in missing)}'"
                f" (Ubuntu's JPEG: libjpeg-turbo8-dev), on Fedora 'dnf install {' '.join(f for _, f in missing)}'"
            )


def fingerprint() -> str:
    """A hash of everything that the installation is made from."""
    digest = hashlib.sha256()
    names = ["setup.py", "pyproject.toml", "CMakeLists.txt", "scripts/bootstrap.py"]
    folders = ("cpp/include", "cpp/src", "cpp/bindings", "cmake")
    sources = sorted(p for folder in folders for p in (ROOT / folder).rglob("*") if p.is_file())
    for path in [*(ROOT / name for name in names), *sources]:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def run(title: str, command: list[str]) -> None:
    """One step, its own output and progress shown."""
    print(f"setup: {title}", flush=True)
    if subprocess.run(command, cwd=ROOT, check=False).returncode != 0:
        stop(f"{title}: failed; see above")


def main() -> None:
    """Checks, installs, and remembers that it did."""
    venv = ROOT / sys.argv[1]
    python, stamp = venv / "bin" / "python", venv / "edgerecall-setup"
    mark = fingerprint()
    if stamp.is_file() and stamp.read_text() == mark and works([str(python), "-c", "import edgerecall"]):
        return
    check_compiler()
    if not works([str(python), "-c", PROBE]):
        run(f"virtual environment {venv.name}", [find_python(), "-m", "venv", "--clear", str(venv)])
    pip = [str(python), "-m", "pip", "--disable-pip-version-check"]
    run("pip", [*pip, "install", "--quiet", "--upgrade", "pip"])
    run("packages and the C++ core (about 400 MB to download)", [*pip, "install", "--editable", ".[all,dev]"])
    run("pnnx, without the torch that its script wants", [*pip, "install", "--quiet", "--no-deps", "pnnx"])
    run("Paddle Lite sidecar", [str(venv / "bin" / "edgerecall"), "doctor", "--fix", "lite"])
    stamp.write_text(mark)


if __name__ == "__main__":
    main()
