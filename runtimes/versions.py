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
    "numpy",
    "pillow",
    "opencv-python-headless",
)


def installed_versions(names: Iterable[str] = RELEVANT) -> dict[str, str]:
    """Distribution name to version, for those of `names` that are installed."""
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
