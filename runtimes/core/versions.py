"""Installed versions, for artifacts and results."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

ALWAYS = ("edgerecall", "numpy", "pillow")  # whose versions every artifact and result names


@dataclass(frozen=True)
class Package:
    """An optional package.

    module: what is imported. distribution: what is installed; others: further ones that bring the same module.
    extra: of ours, which brings it. below: the first Python that it has no wheel for; otherwise: what else helps there.
    shown: whether artifacts and results name its version. by_hand: what pip is to install where no extra can bring it.
    """

    module: str
    distribution: str
    extra: str
    below: tuple[int, int] | None = None
    otherwise: str = ""
    others: tuple[str, ...] = ()
    shown: bool = True
    by_hand: str = ""

    @property
    def distributions(self) -> tuple[str, ...]:
        """All names that it may be installed under."""
        return (self.distribution, *self.others)


PADDLE = Package("paddle", "paddlepaddle", "paddle", (3, 14), others=("paddlepaddle-gpu",))
ONNXRUNTIME = Package("onnxruntime", "onnxruntime", "onnx", others=("onnxruntime-gpu",))
OPENVINO = Package("openvino", "openvino", "openvino")
# By module: those that no runtime's description has.
PACKAGES = {
    package.module: package
    for package in (
        PADDLE,
        Package("paddle2onnx", "paddle2onnx", "export", (3, 13), ", or run 'edgerecall doctor --fix paddle2onnx'"),
        Package("onnx", "onnx", "export-onnx", shown=False),
        Package("pnnx", "pnnx", "", by_hand="--no-deps pnnx"),  # without torch
        # Without what it does not import here, under Pythons older than it names: it does the same there.
        Package("onnx2tf", "onnx2tf", "", by_hand="--no-deps --ignore-requires-python onnx2tf==2.6.9 sng4onnx==2.0.1"),
        Package("nncf", "nncf", "quantize"),
        Package("ml_dtypes", "ml_dtypes", "quantize", shown=False),
        Package("scipy", "scipy", "bench", shown=False),
        Package("matplotlib", "matplotlib", "bench", shown=False),
        Package("jinja2", "jinja2", "bench", shown=False),
        Package("psutil", "psutil", "bench", shown=False),
        Package("mlperf_loadgen", "mlcommons-loadgen", "bench", (3, 14)),
        Package("pyarrow", "pyarrow", "parquet", shown=False),
        Package("visualdl", "visualdl", "visualdl", shown=False),
        Package("anyio", "anyio", "serve", shown=False),
        Package("google", "protobuf", "serve", shown=False),
        Package("grpc", "grpcio", "serve", shown=False),
        Package("httptools", "httptools", "serve", shown=False),
        Package("pgvector", "pgvector", "postgres", shown=False),
        Package("psycopg", "psycopg", "postgres", shown=False),
        Package("psycopg_pool", "psycopg-pool", "postgres", shown=False),
        Package("faiss", "faiss-cpu", "faiss", shown=False),
        Package("qdrant_client", "qdrant-client", "qdrant", shown=False),
        Package("milvus_lite", "milvus-lite", "milvus", shown=False),
        Package("pymilvus", "pymilvus", "milvus", shown=False),
        Package("ray", "ray", "ray", (3, 15), shown=False),
        Package("prometheus_client", "prometheus-client", "serve", shown=False),
        Package("segno", "segno", "browser", shown=False),
        Package("starlette", "starlette", "serve", shown=False),
        Package("uvicorn", "uvicorn", "serve", shown=False),
    )
}
# What wheels take from the system, and Debian's packages of it.
SYSTEM_PACKAGES = {"libgomp.so.1": "libgomp1", "libGL.so.1": "libgl1", "libstdc++.so.6": "libstdc++6"}
TRAINING = {"paddle": "train"}  # of a verb that trains, which wants more than Paddle alone


def needs(
    package: Package | str,
    extra: str = "",
    python: tuple[int, int] = sys.version_info[:2],
    error: ImportError | None = None,
) -> str:
    """ "needs PACKAGE", with how to install it, or why it cannot be installed under this Python.

    package: or a module of `PACKAGES`. extra: the one to name in place of the package's own. error: of its import,
    which tells where it is installed but a library of the system is not.
    """
    if isinstance(package, str):
        package = PACKAGES[package]
    if error is not None and (library := missing_library(error)):
        return f"needs {package.distribution}, and that {library}"
    if package.below is not None and python >= package.below:
        last = f"{package.below[0]}.{package.below[1] - 1}"
        mine = ".".join(map(str, python))
        remedy = f"use Python 3.10 to {last}{package.otherwise}"
        return f"needs {package.distribution}, which has no wheel for Python {mine}: {remedy}"
    return f'needs {package.distribution}: run "{install_command(package, extra)}"'


def install_command(package: Package, extra: str = "") -> str:
    """What installs it."""
    chosen = extra or package.extra
    if chosen:
        return f"pip install 'edgerecall[{chosen}]'"
    return f"pip install {package.by_hand or f'--no-deps {package.distribution}'}"


def missing_package(error: ImportError, packages: Mapping[str, Package] = PACKAGES) -> str | None:
    """One line with the remedy, when what is missing is an optional package or a library of the system; else None."""
    if library := missing_library(error):
        return f"this {library}"
    module = (error.name or "").split(".")[0]
    known = isinstance(error, ModuleNotFoundError) and module in packages
    return f"this {needs(packages[module], TRAINING.get(module, ''))}" if known else None


def missing_library(error: ImportError) -> str | None:
    """ "needs LIBRARY", with its package, when an import failed for want of a shared library or of memory for it, or
    for a stack that is not given.
    """
    if found := re.search(
        r"([^/ ]+): (?:failed to map segment from shared object|cannot allocate memory)$", str(error)
    ):
        return f"needs more memory than this process may use: {found[1]} cannot be loaded"
    if "cannot enable executable stack" in str(error):
        return "asks for an executable stack, which glibc refuses from 2.41 on: run 'edgerecall doctor --fix mnn'"
    found = re.match(r"(lib[^:/ ]+): cannot open shared object file", str(error))
    if found is None:
        return None
    package = SYSTEM_PACKAGES.get(found[1])
    return f"needs {found[1]}: " + (
        f"on Debian or Ubuntu 'apt-get install {package}'" if package else "install the system's package that has it"
    )


def installed_versions(names: Iterable[str]) -> dict[str, str]:
    """Distribution name to version, for those of `names` that are installed."""
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
