"""Wheels that leave the machine: manylinux_2_28, for x86-64 and 64-bit ARM, everything but libc inside.

Usage: .venv/bin/python scripts/make_wheels.py [--machine x86_64] [--python 3.11]. Compiles with zig against glibc 2.28,
for each CPython found (PATH, pyenv, uv), or named and brought by uv; their headers serve both machines, whose ABI of
Python is the same. Writes the
source distribution and the wheels, checked by auditwheel, to dist/.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from edgerecall.cross.build import CrossBuild
from edgerecall.cross.commands import run_logged
from edgerecall.cross.licences import copy_licences
from edgerecall.cross.packages import own_index
from edgerecall.runtimes.core.errors import EdgeRecallError, InputError
from edgerecall.runtimes.core.files import atomic_file
from edgerecall.runtimes.core.targets import find_program, target_named
from edgerecall.runtimes.sidecars.interpreters import by_uv, candidates

ROOT = Path(__file__).resolve().parent.parent
WORK, DIST = ROOT / "build" / "wheels", ROOT / "dist"
PYTHONS = ("3.10", "3.11", "3.12", "3.13", "3.14")
GLIBC = 28  # 2.28: Debian 10, Ubuntu 18.10, RHEL 8
INCLUDE = "import sysconfig; print(sysconfig.get_paths()['include'])"


def uv(title: str, *arguments: object, **environment: str) -> None:
    """Runs uv with pip's package index, output into a log."""
    command = [find_program("uv") or "uv", *arguments, *own_index()]
    run_logged(title, command, WORK / "logs" / f"{title}.log", ROOT, **environment)


def find_python(version: str, fetch: bool) -> tuple[str, str] | None:
    """An interpreter with headers, and where they are. fetch: uv may bring one.

    Not Debian's own headers: they are split by machine, and lie where zig does not look.
    """
    wanted = tuple(map(int, version.split(".")))
    probe = f"import sys; assert sys.version_info[:2] == {wanted}; {INCLUDE}"
    for python in candidates([version]):
        if include := headers_of(python, probe):
            return python, include
    brought = by_uv([version], probe) if fetch else None
    include = headers_of(brought, probe) if brought else None
    return (brought, include) if brought and include else None


def headers_of(python: str, probe: str) -> str | None:
    """The folder of an interpreter's headers, if they are whole and for every machine."""
    try:
        found = subprocess.run([python, "-c", probe], capture_output=True, text=True, check=False)
        include = Path(found.stdout.strip())
        whole = found.returncode == 0 and "-linux-gnu/" not in (include / "pyconfig.h").read_text()
    except OSError:
        return None
    return str(include) if whole and (include / "Python.h").is_file() else None


def make_wheel(build: CrossBuild, sdist: Path, version: str, python: str, include: str, packed: dict[str, str]) -> Path:
    """One wheel, checked and tagged. packed: what setup.py adds, by its environment."""
    machine = build.target.machine
    suffix = f".cpython-{version.replace('.', '')}-{machine}-linux-gnu.so"
    options = [*build.compiler, f"-DPYTHON_MODULE_EXTENSION={suffix}", f"-DPython_INCLUDE_DIR={include}"]
    options.append(f"-DEDGERECALL_CORE_LIBRARY={build.core}")  # compiled once, for the program and every Python
    environment = {
        **packed,
        "CMAKE_ARGS": shlex.join(options),
        "SETUPTOOLS_EXT_SUFFIX": suffix,
        "_PYTHON_HOST_PLATFORM": f"linux-{machine}",
    }
    raw = WORK / "raw" / f"{machine}-{version}"
    shutil.rmtree(raw, ignore_errors=True)
    uv(f"wheel-{machine}-{version}", "build", "--wheel", sdist, "--python", python, "--out-dir", raw, **environment)
    (wheel,) = raw.glob("*.whl")
    checked = raw / "checked"
    command = [sys.executable, "-m", "auditwheel", "repair", "--only-plat", "--wheel-dir", checked, wheel]
    run_logged("auditwheel", command, WORK / "logs" / f"audit-{machine}-{version}.log")
    (repaired,) = checked.glob("*.whl")
    found = re.search(r"-manylinux_2_(\d+)_", repaired.name)
    if found is None or int(found[1]) > GLIBC:
        raise InputError(f"{repaired.name}: expected a wheel for glibc 2.{GLIBC} or older")
    tag = f"manylinux_2_{GLIBC}_{machine}"  # the documented floor, whatever the code of the day happens to need
    command = [sys.executable, "-m", "wheel", "tags", "--remove", "--platform-tag", tag, repaired]
    run_logged("wheel tags", command, WORK / "logs" / f"tags-{machine}-{version}.log")
    (tagged,) = checked.glob("*.whl")
    return Path(shutil.move(tagged, DIST / tagged.name))


def main() -> None:
    """Builds all that was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--machine", action="append", choices=["x86_64", "aarch64"], help="default: both")
    parser.add_argument("--python", action="append", choices=PYTHONS, help="default: every one that is found")
    options = parser.parse_args()
    machines = options.machine or ("x86_64", "aarch64")
    sources = WORK / "-".join(("sdist", *machines))  # two machines may be built for at once
    shutil.rmtree(sources, ignore_errors=True)
    WORK.mkdir(parents=True, exist_ok=True)
    with (WORK / "lock").open("w") as lock:  # setuptools writes into the checkout
        fcntl.flock(lock, fcntl.LOCK_EX)
        uv(sources.name, "build", "--sdist", "--out-dir", sources)
    (sdist,) = sources.glob("*.tar.gz")
    DIST.mkdir(exist_ok=True)
    with atomic_file(DIST / sdist.name) as temporary:
        shutil.copyfile(sdist, temporary)
    found = {version: find_python(version, bool(options.python)) for version in options.python or PYTHONS}
    if missing := [version for version in options.python or () if found[version] is None]:
        raise InputError(f"no CPython {', '.join(missing)} with headers here: install it, by 'uv python install', say")
    for machine in machines:
        build = CrossBuild(ROOT, target_named(f"linux-{machine}-glibc2.28"), (), print)
        licences = WORK / f"licences-{machine}"
        shutil.rmtree(licences, ignore_errors=True)
        packed = {"EDGERECALL_DEVICE_PROGRAM": str(build.compile()), "EDGERECALL_LICENCES": str(licences)}
        copy_licences(build.target, None, licences, print)
        for version, place in found.items():
            if place is None:
                print(f"{machine}: no CPython {version} with headers here: left out")
                continue
            wheel = make_wheel(build, sdist, version, *place, packed)
            print(f"{os.path.relpath(wheel)}: {wheel.stat().st_size / 1e6:.2f} MB", flush=True)


if __name__ == "__main__":
    try:
        main()
    except EdgeRecallError as error:
        sys.stderr.write(f"make_wheels: {error}\n")
        raise SystemExit(2) from None
