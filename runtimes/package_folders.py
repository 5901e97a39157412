"""Where installed packages lie, for what is inside them besides Python."""

from __future__ import annotations

import importlib.util
from pathlib import Path

# Shared libraries in wheels that the core opens: folder, beginning of the name, the variable that names another.
LIBRARIES = {
    "onnxruntime": ("capi", "libonnxruntime.so", "EDGERECALL_ONNXRUNTIME"),
    "openvino": ("libs", "libopenvino_c.so", "EDGERECALL_OPENVINO"),
}


def package_library(package: str) -> str | None:
    """The path of a package's shared library; None when it is not installed."""
    folder, stem, _ = LIBRARIES[package]
    found = (path for place in package_folders(package) for path in sorted((place / folder).glob(f"{stem}*")))
    return next(map(str, found), None)


def package_folders(name: str) -> list[Path]:
    """A package's folders, without importing it; none when it is not installed."""
    spec = importlib.util.find_spec(name)
    return [Path(place) for place in (spec.submodule_search_locations or ())] if spec else []
