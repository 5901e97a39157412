"""Sets up the virtual environment, the C++ core and the sidecars. Standard library only; needs no root.

Usage: python3 scripts/bootstrap.py VENV [--this]. --this: with the interpreter that runs it, whatever PaddlePaddle has
wheels for. Does nothing when all inputs are unchanged since the last success. A working
environment is kept whatever interpreter calls this; remove it to change Python. Where the system has no C++17 compiler,
zig from PyPI compiles; where it lacks the core's libraries, they come from its packages into a private folder. What
only some runtimes need and cannot be had here is named, and left out.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import flatten

sys.path.insert(0, str(flatten.FLAT))
ROOT = flatten.ROOT
# Of those that PaddlePaddle has wheels for, the ones that paddle2onnx has too come first.
VERSIONS = ("3.11", "3.12", "3.10", "3.13")
FIXES = (("mnn", "MNN"), ("lite", "Paddle Lite"), ("paddle2onnx", "paddle2onnx"))
HEADERS = "import os, sysconfig; os.stat(os.path.join(sysconfig.get_path('include'), 'Python.h'))"
COMPILER = "edgerecall-cmake"  # in the environment: the options that the core was built with, for the Makefile
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
    """This interpreter if it fits, else one on PATH, of a version manager, or one that uv brings."""
    from edgerecall.runtimes.sidecars.interpreters import find_interpreter

    python = find_interpreter(VERSIONS)
    if python is None:
        stop(
            "needs Python 3.10 to 3.13 with venv: on Debian 'apt-get install python3 python3-venv', elsewhere"
            " 'uv python install 3.12'"
        )
    return str(python)


def compiles(compiler: str, code: str, *flags: str) -> bool:
    """Whether a program builds."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "probe.cpp"
        source.write_text(code)
        return works([compiler, "-std=c++17", str(source), *flags, "-o", str(Path(folder) / "probe")])


def find_compiler() -> str | None:
    """A C++17 compiler of the system, or the one that CXX names; None where there is none that will do."""
    level = ["-march=x86-64-v2"] if platform.machine() in ("x86_64", "AMD64") else []
    named = os.environ.get("CXX")
    for compiler in [named] if named else ["c++", "g++", "clang++"]:
        if shutil.which(compiler) and compiles(compiler, "int main() { if (int x = 0; x == 0) return 0; }\n", *level):
            return compiler
    if named:
        stop(f"CXX={named} compiles no C++17 (for x86-64-v2): name g++ 11, clang 12 or newer, or unset it")
    return None


def missing_libraries(compiler: str) -> list[tuple[str, str]]:
    """Packages with what the core links, on Debian and on Fedora, that are not installed."""
    return [
        (debian, fedora)
        for include, link, debian, fedora in LIBRARIES
        if not compiles(compiler, f"{include}\nint main() {{ return 0; }}\n", *([link] if link else ["-c"]))
    ]


def core_options(python: Path, pip: list[str]) -> list[str]:
    """CMake's options for the core: none where the system has all it needs."""
    compiler = find_compiler()
    missing = missing_libraries(compiler) if compiler else [names[2:] for names in LIBRARIES]
    if not works([str(python), "-c", HEADERS]):
        missing = [*missing, ("python3-dev", "python3-devel")]
    if not missing:
        return []
    if compiler is None:
        missing = [("g++", "gcc-c++"), *missing]
    debian, fedora = (" ".join(names[place] for names in missing) for place in (0, 1))
    if shutil.which("apt-get") is None:
        stop(f"needs development packages: on Debian 'apt-get install {debian}', on Fedora 'dnf install {fedora}'")
    what = "libraries" if compiler else "compiler and libraries"
    packages = ["cmake", "numpy", "pydantic", "pyyaml", *([] if compiler else ["ziglang"])]
    run(f"the core's {what}, into private folders", [*pip, "install", "--quiet", *packages])
    command = [str(python), "-m", "edgerecall.cross.host", *([] if compiler else ["--zig"])]
    environment = {**os.environ, "PYTHONPATH": str(flatten.FLAT)}
    found = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False, env=environment)
    if found.returncode != 0:
        stop(f"{what}: not to be had without root: install them by 'apt-get install {debian}'")
    return found.stdout.splitlines()


def fingerprint() -> str:
    """A hash of everything that the installation is made from."""
    digest = hashlib.sha256()
    names = [
        "setup.py",
        "pyproject.toml",
        "CMakeLists.txt",
        "scripts/bootstrap.py",
        "runtimes/sidecars/sidecar.py",
        "cross/host.py",
        "runtimes/bundle/bundle.schema.json",
        "runtimes/core/contract.json",
    ]
    folders = ("cpp/include", "cpp/src", "cpp/bindings", "cmake")
    sources = sorted(p for folder in folders for p in (ROOT / folder).rglob("*") if p.is_file())
    for path in [*(ROOT / name for name in names), *sources]:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def run(title: str, command: list[str], optional: bool = False, **environment: str) -> bool:
    """One step, its own output and progress shown. optional: what fails is named, and the rest goes on."""
    print(f"setup: {title}", flush=True)
    good = subprocess.run(command, cwd=ROOT, check=False, env={**os.environ, **environment}).returncode == 0
    if not good and not optional:
        stop(f"{title}: failed; see above")
    return good


def main() -> None:
    """Checks, installs, and remembers that it did."""
    venv = ROOT / sys.argv[1]
    python, stamp = venv / "bin" / "python", venv / "edgerecall-setup"
    mark = fingerprint()
    core = [str(python), "-c", "from edgerecall.runtimes import _native"]
    if stamp.is_file() and stamp.read_text() == mark and works(core):
        return
    flatten.main()
    from edgerecall.runtimes.core.versions import PACKAGES

    if not works([str(python), "-c", "import sys; sys.exit(sys.version_info < (3, 10))"]):
        base = sys.executable if "--this" in sys.argv else find_python()
        run(f"virtual environment {venv.name}", [base, "-m", "venv", "--clear", str(venv)])
    pip = [str(python), "-m", "pip", "--disable-pip-version-check"]
    run("pip", [*pip, "install", "--quiet", "--upgrade", "pip"])
    options = core_options(python, pip)
    (venv / COMPILER).write_text(shlex.join(options) + "\n")
    arguments = shlex.join([*shlex.split(os.environ.get("CMAKE_ARGS", "")), *options])
    install = [*pip, "install", "--editable", ".[all,dev]"]
    run("packages and the C++ core (about 400 MB to download)", install, CMAKE_ARGS=arguments)
    for module in ("pnnx", "onnx2tf"):
        run(f"{module}, without what it does not need", [*pip, "install", "--quiet", *PACKAGES[module].by_hand.split()])
    if shutil.which("apt-get"):
        run("OpenMP", [str(python), "-m", "edgerecall.cross.host", "--openmp"])
    missing = []
    for name, title in FIXES:
        made = run(title, [str(venv / "bin" / "edgerecall"), "doctor", "--fix", name], optional=True)
        missing += [] if made else [title]
    stamp.write_text(mark)
    for title in missing:
        print(f"setup: without {title}, for the reason above; everything else works", flush=True)


if __name__ == "__main__":
    main()
