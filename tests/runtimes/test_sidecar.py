"""The Lite sidecar: found, named, and refused when it is not what it must be."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

from edgerecall.runtimes import sidecar
from edgerecall.runtimes.errors import InputError, RuntimeUnavailable

SIDECAR_MODULES = ("errors", "predictor", "wire", "worker_main", "load_test", "lite_predictor")


def test_found(lite_ready: None) -> None:
    python = sidecar.find_python()
    assert python is not None and sidecar.runs(python, sidecar.PROBE)


def test_a_named_interpreter_must_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(sidecar.VARIABLE, sys.executable if sys.version_info >= (3, 11) else "/bin/false")
    with pytest.raises(RuntimeUnavailable, match="cannot import paddlelite with numpy<2"):
        sidecar.find_python()


def test_shims_that_do_not_run_are_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shim = tmp_path / "python3.10"
    shim.write_text("#!/bin/sh\nexit 127\n")
    shim.chmod(0o755)
    monkeypatch.setattr(sidecar, "base_interpreters", lambda: iter([str(shim)]))
    monkeypatch.setattr(sidecar.shutil, "which", lambda name: None)
    with pytest.raises(InputError, match=r"needs CPython 3\.8, 3\.9 or 3\.10 and none was found: install one"):
        sidecar.usable_base()


@pytest.mark.parametrize("module", SIDECAR_MODULES)
def test_modules_speak_python_3_8(module: str) -> None:
    source = Path(sidecar.__file__).with_name(f"{module}.py").read_text()
    tree = ast.parse(source, feature_version=(3, 8))
    third_party = set()
    for node in tree.body:
        if isinstance(node, ast.Import):
            third_party |= {name.name.split(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            third_party.add(str(node.module).split(".")[0])
        elif isinstance(node, ast.ImportFrom):
            assert node.module in SIDECAR_MODULES
    assert third_party - set(sys.stdlib_module_names) <= {"numpy"}
