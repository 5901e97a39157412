"""Libraries that the user names: packed where the program looks for them, and known to CMake and the core."""

from __future__ import annotations

from pathlib import Path

from edgerecall.cross.runtimes import GIVEN
from edgerecall.runtimes.predictor.registry import core_backends


def test_each_is_looked_for_where_it_is_packed(root: Path) -> None:
    device = (root / "cmake" / "device.cmake").read_text()
    for name, library in GIVEN.items():
        assert f"$ORIGIN/lib/{name};" in device
        for file in ("CMakeLists.txt", "cmake/predictors.cmake", "cpp/src/runtimes/registry.cpp"):
            assert library.option in (root / file).read_text(), (name, file)
    linked = {one.artifacts for one in core_backends() if one.library and one.library.origin == "given"}
    assert linked == {*GIVEN, "paddle"}
