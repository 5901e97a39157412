"""Installed versions, for artifacts and results."""

from __future__ import annotations

import re
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
    """An optional package. extra: of ours, which brings it. below: the first Python that it has no wheel for;
    otherwise: what else helps there."""

    distribution: str
    extra: str
    below: tuple[int, int] | None = None
    otherwise: str = ""


# By the module that is imported.
PACKAGES = {
    "paddle": Package("paddlepaddle", "paddle", (3, 14)),
    "paddle2onnx": Package("paddle2onnx", "export", (3, 13), ", or run 'edgerecall doctor --fix paddle2onnx'"),
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
# What wheels take from the system, and Debian's packages of it.
SYSTEM_PACKAGES = {"libgomp.so.1": "libgomp1", "libGL.so.1": "libgl1", "libstdc++.so.6": "libstdc++6"}
TRAINING = {"paddle": "train"}  # of a verb that trains, which wants more than Paddle alone


def needs(
    module: str, extra: str = "", python: tuple[int, int] = sys.version_info[:2], error: ImportError | None = None
) -> str:
    """ "needs PACKAGE", with how to install it, or why it cannot be installed under this Python.

    extra: the one to name in place of the package's own. error: of its import, which tells where it is installed but a
    library of the system is not.
    """
    package = PACKAGES[module]
    if error is not None and (library := missing_library(error)):
        return f"needs {package.distribution}, and that {library}"
    if package.below is not None and python >= package.below:
        last = f"{package.below[0]}.{package.below[1] - 1}"
        mine = ".".join(map(str, python))
        remedy = f"use Python 3.10 to {last}{package.otherwise}"
        return f"needs {package.distribution}, which has no wheel for Python {mine}: {remedy}"
    return f"needs {package.distribution}: run \"pip install 'edgerecall[{extra or package.extra}]'\""


def missing_package(error: ImportError) -> str | None:
    """One line with the remedy, when what is missing is an optional package or a library of the system; else None."""
    if library := missing_library(error):
        return f"this {library}"
    module = (error.name or "").split(".")[0]
    known = isinstance(error, ModuleNotFoundError) and module in PACKAGES
    return f"this {needs(module, TRAINING.get(module, ''))}" if known else None


def missing_library(error: ImportError) -> str | None:
    """ "needs LIBRARY", with its package, when an import failed for want of a shared library."""
    found = re.match(r"(lib[^:/ ]+): cannot open shared object file", str(error))
    if found is None:
        return None
    package = SYSTEM_PACKAGES.get(found[1])
    return f"needs {found[1]}: " + (
        f"on Debian or Ubuntu 'apt-get install {package}'" if package else "install the system's package that has it"
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
