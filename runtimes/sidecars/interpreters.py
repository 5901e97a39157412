"""Other Python interpreters of this machine. Standard library only: scripts/bootstrap.py uses it before all else."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

UV_TIMEOUT_S = 300


def runs(python: str | Path, code: str) -> bool:
    """Whether this interpreter runs the code with exit code 0; a version manager's shim may not run at all."""
    try:
        result = subprocess.run([str(python), "-s", "-c", code], capture_output=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return result.returncode == 0


def venv_probe(versions: Sequence[str], modules: str = "venv, ensurepip") -> str:
    """Code that succeeds in an interpreter of one of these versions (`3.10`) that can make virtual environments."""
    wanted = [tuple(map(int, version.split("."))) for version in versions]
    return f"import {modules}, sys; sys.exit(sys.version_info[:2] not in {wanted})"


def candidates(versions: Sequence[str]) -> Iterator[str]:
    """Those of each version in turn: this interpreter, on PATH, of pyenv, of uv; each still to be tried."""
    for version in versions:
        if tuple(map(int, version.split("."))) == sys.version_info[:2]:
            yield sys.executable
        found = shutil.which(f"python{version}")
        if found:
            yield found
        yield from map(str, sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python")))
        yield from map(str, sorted(Path.home().glob(f".local/share/uv/python/cpython-{version}.*/bin/python3")))


def find_interpreter(versions: Sequence[str]) -> str | None:
    """One that runs, of one of these versions, with venv; uv is asked to bring one when there is none."""
    probe = venv_probe(versions)
    return next((python for python in candidates(versions) if runs(python, probe)), None) or by_uv(versions, probe)


def by_uv(versions: Sequence[str], probe: str) -> str | None:
    """What uv has or downloads; None without uv, or where it cannot."""
    beside = Path(sys.executable).with_name("uv")
    uv = str(beside) if beside.is_file() else shutil.which("uv")
    if uv is None:
        return None
    environment = {**os.environ, "UV_NO_CONFIG": "1"}
    for command in (["python", "install", versions[0]], ["python", "find", "--no-project", versions[0]]):
        try:
            result = subprocess.run(
                [uv, *command], capture_output=True, text=True, timeout=UV_TIMEOUT_S, env=environment, check=False
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        if result.returncode != 0:
            return None
    found = result.stdout.strip()
    return found if runs(found, probe) else None
