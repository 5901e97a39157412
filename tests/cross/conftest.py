"""Wheels, built as `make wheel` does."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def wheel(root: Path) -> Callable[[str, str], Path]:
    """Builds one, as 'make wheel' does all; once."""

    @cache
    def build(machine: str, version: str) -> Path:
        command = [sys.executable, "scripts/make_wheels.py", "--machine", machine, "--python", version]
        result = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stdout + result.stderr
        tag = f"cp{version.replace('.', '')}"
        (found,) = (root / "dist").glob(f"edgerecall-*-{tag}-{tag}-manylinux_2_28_{machine}.whl")
        return found

    return build
