"""Installed versions, for artifacts and results."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version

RELEVANT = (
    "edgerecall",
    "paddlepaddle",
    "paddlepaddle-gpu",
    "paddle2onnx",
    "onnxruntime",
    "openvino",
    "ncnn",
    "pnnx",
    "numpy",
    "pillow",
    "mlcommons-loadgen",
)

# module -> (distribution, the extra that brings it)
PROVIDERS = {
    "paddle": ("paddlepaddle", "train"),
    "paddle2onnx": ("paddle2onnx", "export"),
    "onnxruntime": ("onnxruntime", "onnx"),
    "openvino": ("openvino", "openvino"),
    "scipy": ("scipy", "bench"),
    "matplotlib": ("matplotlib", "bench"),
}


def missing_package(error: ModuleNotFoundError) -> str | None:
    """One line with the remedy, when the missing module is of an optional package; else None."""
    provider = PROVIDERS.get((error.name or "").split(".")[0])
    return f"this needs {provider[0]}: run \"pip install 'edgerecall[{provider[1]}]'\"" if provider else None


def installed_versions(names: Iterable[str] = RELEVANT) -> dict[str, str]:
    """Distribution name to version, for those of `names` that are installed."""
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
