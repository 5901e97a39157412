"""Installed versions, for artifacts and results."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Package:
    """An optional package. extra: of ours, which brings it. below: the first Python that it has no wheel for."""

    distribution: str
    extra: str
    below: tuple[int, int] | None = None


# By the module that is imported.
PACKAGES = {
    "paddle": Package("paddlepaddle", "paddle", (3, 14)),
    "paddle2onnx": Package("paddle2onnx", "export", (3, 13)),
    "onnx": Package("onnx", "export"),
    "onnxruntime": Package("onnxruntime", "onnx"),
    "openvino": Package("openvino", "openvino"),
    "ncnn": Package("ncnn", "ncnn"),
    "scipy": Package("scipy", "bench"),
    "matplotlib": Package("matplotlib", "bench"),
    "jinja2": Package("jinja2", "bench"),
    "psutil": Package("psutil", "bench"),
    "mlperf_loadgen": Package("mlcommons-loadgen", "bench", (3, 14)),
    "pyarrow": Package("pyarrow", "parquet"),
    "visualdl": Package("visualdl", "visualdl"),
}
TRAINING = {"paddle": "train"}  # of a verb that trains, which wants more than Paddle alone


def needs(module: str, extra: str = "", python: tuple[int, int] = sys.version_info[:2]) -> str:
    """ "needs PACKAGE", with how to install it, or why it cannot be installed under this Python.

    extra: the one to name in place of the package's own.
    """
    package = PACKAGES[module]
    if package.below is not None and python >= package.below:
        last = f"{package.below[0]}.{package.below[1] - 1}"
        mine = ".".join(map(str, python))
        return f"needs {package.distribution}, which has no wheel for Python {mine}: use Python 3.10 to {last}"
    return f"needs {package.distribution}: run \"pip install 'edgerecall[{extra or package.extra}]'\""


def missing_package(error: ModuleNotFoundError) -> str | None:
    """One line with the remedy, when the missing module is of an optional package; else None."""
    module = (error.name or "").split(".")[0]
    return f"this {needs(module, TRAINING.get(module, ''))}" if module in PACKAGES else None


def installed_versions(names: Iterable[str] = RELEVANT) -> dict[str, str]:
    """Distribution name to version, for those of `names` that are installed."""
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
