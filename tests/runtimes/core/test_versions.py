"""Optional packages: named with the extra that brings them, or with the reason why none can."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

from edgerecall.runtimes.core.versions import PADDLE, missing_package, needs
from edgerecall.runtimes.predictor.registry import packages
from edgerecall.runtimes.sidecars.sidecar import SIDECARS

if sys.version_info >= (3, 11):
    import tomllib
else:  # pytest brings it there
    import tomli as tomllib


def project(root: Path) -> Any:
    """`project` of pyproject.toml."""
    return tomllib.loads((root / "pyproject.toml").read_text())["project"]


def brought_by(root: Path, extra: str, python: str) -> dict[str, Requirement]:
    """What an extra installs under a Python, extras that it names included."""
    extras = project(root)["optional-dependencies"]
    found: dict[str, Requirement] = {}
    for text in extras[extra]:
        requirement = Requirement(text)
        if requirement.marker is not None and not requirement.marker.evaluate({"python_version": python}):
            continue
        if requirement.name != "edgerecall":
            found[requirement.name] = requirement
        for inner in requirement.extras if requirement.name == "edgerecall" else ():
            found |= brought_by(root, inner, python)
    return found


# pnnx, whose script wants torch, is in none.
OF_EXTRAS = [module for module, package in packages().items() if package.extra]


@pytest.mark.parametrize("module", OF_EXTRAS)
def test_the_extra_brings_it_wherever_it_can(root: Path, module: str) -> None:
    package = packages()[module]
    for minor in range(10, 15):
        there = package.distribution in brought_by(root, package.extra, f"3.{minor}")
        assert there == (package.below is None or (3, minor) < package.below), minor


def test_where_it_cannot_be_installed_the_reason_is_told() -> None:
    assert needs("paddle2onnx", python=(3, 13)) == (
        "needs paddle2onnx, which has no wheel for Python 3.13: use Python 3.10 to 3.12, or run"
        " 'edgerecall doctor --fix paddle2onnx'"
    )
    assert needs("paddle2onnx", python=(3, 12)) == "needs paddle2onnx: run \"pip install 'edgerecall[export]'\""
    assert missing_package(ModuleNotFoundError("no", name="scipy.stats")) == f"this {needs('scipy')}"
    assert missing_package(ModuleNotFoundError("no", name="left_pad")) is None
    assert missing_package(ImportError("cannot import name 'x'", name="paddle")) is None


def test_a_missing_library_of_the_system_is_told_with_its_package() -> None:
    error = ImportError("libgomp.so.1: cannot open shared object file: No such file or directory")
    library = "needs libgomp.so.1: on Debian or Ubuntu 'apt-get install libgomp1'"
    assert missing_package(error) == f"this {library}"
    assert needs(PADDLE, error=error) == f"needs paddlepaddle, and that {library}"
    assert needs(PADDLE, error=ModuleNotFoundError("no", name="paddle")) == needs(PADDLE)


def test_a_gpu_user_s_paddle_is_left_alone(root: Path) -> None:
    train, gpu = (brought_by(root, extra, "3.11") for extra in ("train", "train-gpu"))
    assert set(train) - set(gpu) == {"paddlepaddle"} and set(gpu) <= set(train)


def test_the_base_is_slim_and_without_a_cap_on_python(root: Path) -> None:
    assert project(root)["requires-python"] == ">=3.10"
    base = {Requirement(text).name for text in project(root)["dependencies"]}
    assert base == {"click", "numpy", "pillow", "pydantic", "pyyaml", "rich"}


def test_sidecars_take_the_versions_that_the_extras_name(root: Path) -> None:
    for sidecar in SIDECARS.values():
        extra = {"lite": "lite", "paddle2onnx": "export"}[sidecar.name]
        named = brought_by(root, extra, "3.10")
        for text in sidecar.requirements:
            requirement = Requirement(text)
            assert named[requirement.name].specifier == requirement.specifier


def test_a_library_that_memory_does_not_hold_is_no_missing_package() -> None:
    error = ImportError("/x/libpaddle.so: failed to map segment from shared object")
    assert "libpaddle.so cannot be loaded" in str(missing_package(error))
    for other in (
        "failed to map segment from shared object: Operation not permitted",
        "cannot allocate memory in static",
    ):
        assert missing_package(ImportError(f"/x/libpaddle.so: {other}")) is None
    assert "more memory" in needs(PADDLE, error=error) and "pip install" not in needs(PADDLE, error=error)
