"""Sidecars: environments of an older Python for packages that this one cannot have, made and found by the tool."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np

from ..core.errors import InputError, RuntimeUnavailable
from ..core.files import user_cache, write_error
from .interpreters import find_interpreter, runs

INSTALL = ("install", "--disable-pip-version-check", "--quiet")
STARTED = "edgerecall-"  # of files in site-packages that bring what the system lacks: sidecars need it too


_PROVEN: set[tuple[str, str]] = set()


def proven(python: str | Path, probe: str) -> bool:
    """Whether an interpreter runs a probe; one that did is not started again for it in this process."""
    key = (str(python), probe)
    if key not in _PROVEN and runs(python, probe):
        _PROVEN.add(key)
    return key in _PROVEN


def has_numpy_1() -> bool:
    """Whether this interpreter's numpy is older than 2."""
    return int(np.__version__.split(".")[0]) < 2


@dataclass(frozen=True)
class Sidecar:
    """package: the module it is made for. versions: of CPython that this has wheels for, the best first.

    probe: code that succeeds where it works; condition: the same in words. variable: of the environment, names an
    interpreter to take. extras: what it may have besides; not on every system. fits: a further condition for using this
    very interpreter.
    """

    name: str
    package: str
    versions: tuple[str, ...]
    requirements: tuple[str, ...]
    probe: str
    condition: str
    variable: str
    extras: tuple[str, ...] = ()
    extras_probe: str = ""
    fits: Callable[[], bool] = lambda: True

    @property
    def folder(self) -> Path:
        """Beside the running virtual environment when there is one, else in the user's cache."""
        if sys.prefix != sys.base_prefix:
            return Path(sys.prefix) / f"{self.name}-sidecar"
        return user_cache() / f"{self.name}-sidecar"

    def runs_here(self) -> bool:
        """Whether this interpreter itself has the package."""
        return importlib.util.find_spec(self.package) is not None and self.fits()

    def find_python(self) -> str | None:
        """An interpreter that has the package: the named one, this one, or the sidecar's. None if there is none.

        RuntimeUnavailable when the named one has not.
        """
        named = os.environ.get(self.variable)
        if named:
            if not proven(named, self.probe):
                raise RuntimeUnavailable(
                    f"{self.variable}={named} cannot {self.condition}: unset it, or name an interpreter that can"
                )
            return named
        if self.runs_here():
            return sys.executable
        python = self.folder / "bin" / "python"
        return str(python) if python.exists() and proven(python, self.probe) else None

    def make(self, fetch: Callable[[tuple[str, ...]], str | None] = lambda versions: None) -> Path:
        """Makes the environment and returns its interpreter. An existing good one is kept, and completed.

        fetch: brings an interpreter of one of the versions, with venv, where the machine has none. InputError when none
        is to be had, RuntimeUnavailable when a step fails.
        """
        python = self.folder / "bin" / "python"
        pip = [str(python), "-m", "pip"]
        if not (python.exists() and runs(python, self.probe)):
            base = find_interpreter(self.versions) or fetch(self.versions) or self._none_found()
            try:
                self.folder.parent.mkdir(parents=True, exist_ok=True)
                shutil.rmtree(self.folder, ignore_errors=True)
            except OSError as error:
                raise write_error(self.folder, error) from error
            # A virtual environment holds its own path, so it is built in place and marked good only by the probe.
            whole = runs(base, "import ensurepip")
            self._step([base, "-m", "venv", *([] if whole else ["--without-pip"]), str(self.folder)])
            pip = pip if whole else [sys.executable, "-m", "pip", "--python", str(python)]
            for start in Path(sysconfig.get_path("purelib")).glob(f"{STARTED}*.pth"):
                for packages in self.folder.glob("lib/python*/site-packages"):
                    shutil.copy(start, packages)
            self._step([*pip, *INSTALL, *self.requirements])
            if not runs(python, self.probe):
                raise RuntimeUnavailable(f"the sidecar at {self.folder} was made but cannot {self.condition}")
        if self.extras and not runs(python, self.extras_probe):
            logged([*pip, *INSTALL, *self.extras])
        return python

    def _step(self, command: list[str]) -> None:
        code, last_line = logged(command)
        if code != 0:
            shutil.rmtree(self.folder, ignore_errors=True)
            raise RuntimeUnavailable(f"'{' '.join(command)}' failed: {last_line}")

    def _none_found(self) -> NoReturn:
        *most, last = sorted(self.versions, key=lambda version: int(version.split(".")[1]))
        best = self.versions[0]
        raise InputError(
            f"{self.package} needs CPython {', '.join(most)} or {last} and none was found: install one"
            f" ('pip install uv && uv python install {best}', 'pyenv install {best}' or"
            f" 'apt-get install python{best}-venv'), then run 'edgerecall doctor --fix {self.name}'"
        )


LITE = Sidecar(
    name="lite",
    package="paddlelite",
    versions=("3.10", "3.9", "3.8"),
    requirements=("paddlelite==2.13rc0", "numpy<2"),
    probe="import numpy, sys; from paddlelite import lite; sys.exit(int(numpy.__version__.split('.')[0]) >= 2)",
    condition="import paddlelite with numpy<2",
    variable="EDGERECALL_LITE_PYTHON",
    extras=("mlcommons-loadgen>=6,<7",),  # for 'bench --scenario'
    extras_probe="import mlperf_loadgen",
    fits=has_numpy_1,
)
PADDLE2ONNX = Sidecar(
    name="paddle2onnx",
    package="paddle2onnx",
    versions=("3.12", "3.11", "3.10"),
    # The last two are imported, by PaddlePaddle and by paddle2onnx, and not declared.
    requirements=("paddlepaddle>=3.3.1,<3.4", "paddle2onnx>=2.1.0,<2.2", "setuptools", "packaging"),
    probe="import paddle2onnx",
    condition="import paddle2onnx",
    variable="EDGERECALL_PADDLE2ONNX_PYTHON",
)
SIDECARS = {sidecar.name: sidecar for sidecar in (LITE, PADDLE2ONNX)}


def logged(step: list[str]) -> tuple[int, str]:
    """Runs a command; its exit code and the last line it printed."""
    with tempfile.TemporaryFile() as log:
        result = subprocess.run(step, stdout=log, stderr=subprocess.STDOUT, check=False)
        log.seek(0)
        lines = log.read().decode(errors="replace").strip().splitlines()
    return result.returncode, lines[-1] if lines else "no output"
