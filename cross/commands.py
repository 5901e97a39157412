"""Running the tools of a build, each with its log."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from ..runtimes.core.errors import InputError, RuntimeFailed
from ..runtimes.core.files import write_error
from ..runtimes.core.targets import find_program, program_path

CMAKE = ("cmake", "cmake")
ERROR_MARKS = ("error:", "Error", "ERROR", "E: ", "fatal", "***Failed", "undefined reference")


def require_tools(tools: Sequence[tuple[str, str]]) -> None:
    """InputError with one command that brings all that is missing."""
    missing = [(program, package) for program, package in (*tools, CMAKE) if find_program(program) is None]
    if missing:
        programs = ", ".join(program for program, _ in missing)
        packages = " ".join(dict.fromkeys(package for _, package in missing))
        raise InputError(f"needs {programs}: on Debian or Ubuntu 'apt-get install {packages}'")


def run_logged(
    title: str, command: Sequence[object], log: Path, folder: Path | None = None, **environment: str
) -> None:
    """Runs to the end, output into the log. RuntimeFailed with the telling line and the log's path."""
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as stream:
            result = subprocess.run(
                [str(part) for part in command],
                cwd=folder,
                env={**os.environ, "PATH": program_path(), **environment},
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                check=False,
            )
    except FileNotFoundError as error:
        raise InputError(f"{title}: needs '{command[0]}', which is not installed") from error
    except OSError as error:
        raise write_error(log, error) from error
    if result.returncode != 0:
        raise RuntimeFailed(f"{title} failed: {telling_line(log)}; all of it: {log}")


def cmake_build(title: str, folder: Path, log: Path, *options: str) -> None:
    """Builds what was configured in a folder, on as many cores as CMAKE_BUILD_PARALLEL_LEVEL says, else all."""
    jobs = os.environ.get("CMAKE_BUILD_PARALLEL_LEVEL", str(os.cpu_count() or 1))
    run_logged(title, ["cmake", "--build", folder, "--parallel", jobs, *options], log)


def telling_line(log: Path) -> str:
    """The first line that looks like the reason, else the last."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    found = next((line for line in lines if any(mark in line for mark in ERROR_MARKS)), None)
    return (found or (lines[-1] if lines else "no output"))[:300]
