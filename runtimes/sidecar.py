"""The Lite sidecar: an older interpreter with paddlelite and numpy<2, made and found by the tool itself."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from .errors import InputError, RuntimeUnavailable
from .files import write_error

VERSIONS = ("3.10", "3.9", "3.8")
REQUIREMENTS = ("paddlelite==2.13rc0", "numpy<2")
EXTRAS = ("mlcommons-loadgen>=6,<7",)  # for 'bench --scenario'; not on every system
PROBE = "import numpy, sys; from paddlelite import lite; sys.exit(int(numpy.__version__.split('.')[0]) >= 2)"
VARIABLE = "EDGERECALL_LITE_PYTHON"


def sidecar_dir() -> Path:
    """Beside the running virtual environment when there is one, else in the user's cache."""
    if sys.prefix != sys.base_prefix:
        return Path(sys.prefix) / "lite-sidecar"
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path("~/.cache").expanduser())
    return Path(cache) / "edgerecall" / "lite-sidecar"


def runs(python: str | Path, code: str) -> bool:
    """Whether this interpreter runs the code with exit code 0; a version manager's shim may not run at all."""
    try:
        result = subprocess.run([str(python), "-s", "-c", code], capture_output=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return result.returncode == 0


def runs_here() -> bool:
    """Whether this interpreter itself can run paddlelite."""
    return importlib.util.find_spec("paddlelite") is not None and int(np.__version__.split(".")[0]) < 2


def find_python() -> str | None:
    """An interpreter that can run paddlelite: the named one, this one, or the sidecar's. None if there is none."""
    named = os.environ.get(VARIABLE)
    if named:
        if not runs(named, PROBE):
            raise RuntimeUnavailable(
                f"{VARIABLE}={named} cannot import paddlelite with numpy<2: unset it, or name an interpreter that can"
            )
        return named
    if runs_here():
        return sys.executable
    python = sidecar_dir() / "bin" / "python"
    return str(python) if python.exists() and runs(python, PROBE) else None


def base_interpreters() -> Iterator[str]:
    """Interpreters of a fitting version, likely ones first; each still has to be tried."""
    if sys.version_info[:2] <= (3, 10):
        yield sys.executable
    for version in VERSIONS:
        found = shutil.which(f"python{version}")
        if found:
            yield found
        yield from map(str, sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python")))
        yield from map(str, sorted(Path.home().glob(f".local/share/uv/python/cpython-{version}.*/bin/python3")))


def usable_base() -> str:
    """The first interpreter that runs and has venv; asks uv for one when there is none."""
    for python in base_interpreters():
        if runs(python, "import venv, ensurepip, sys; sys.exit(not (3, 8) <= sys.version_info[:2] <= (3, 10))"):
            return python
    uv = shutil.which("uv")
    if uv:
        subprocess.run([uv, "python", "install", VERSIONS[0]], capture_output=True, check=False)
        found = subprocess.run([uv, "python", "find", VERSIONS[0]], capture_output=True, text=True, check=False)
        if found.returncode == 0 and runs(found.stdout.strip(), "import venv, ensurepip"):
            return found.stdout.strip()
    raise InputError(
        "paddlelite needs CPython 3.8, 3.9 or 3.10 and none was found: install one"
        " ('pip install uv && uv python install 3.10', 'pyenv install 3.10' or 'apt-get install python3.10-venv'),"
        " then run 'edgerecall doctor --fix lite'"
    )


def make() -> Path:
    """Makes the sidecar environment and returns its interpreter. An existing good one is kept, and completed."""
    target = sidecar_dir()
    python = target / "bin" / "python"
    install = [str(python), "-m", "pip", "install", "--disable-pip-version-check", "--quiet"]
    if not (python.exists() and runs(python, PROBE)):
        base = usable_base()
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(target, ignore_errors=True)
        except OSError as error:
            raise write_error(target, error) from error
        # A virtual environment holds its own path, so it is built in place and marked good only by the probe.
        for step in ([base, "-m", "venv", str(target)], [*install, *REQUIREMENTS]):
            code, last_line = logged(step)
            if code != 0:
                shutil.rmtree(target, ignore_errors=True)
                raise RuntimeUnavailable(f"'{' '.join(step)}' failed: {last_line}")
        if not runs(python, PROBE):
            raise RuntimeUnavailable(f"the sidecar at {target} was made but cannot import paddlelite")
    if not runs(python, "import mlperf_loadgen"):
        logged([*install, *EXTRAS])
    return python


def logged(step: list[str]) -> tuple[int, str]:
    """Runs a command; its exit code and the last line it printed."""
    with tempfile.TemporaryFile() as log:
        result = subprocess.run(step, stdout=log, stderr=subprocess.STDOUT, check=False)
        log.seek(0)
        lines = log.read().decode(errors="replace").strip().splitlines()
    return result.returncode, lines[-1] if lines else "no output"
