"""What this machine can train, convert and run."""

from __future__ import annotations

import platform
import subprocess
import sys
from dataclasses import dataclass

from .runtimes.errors import RuntimeUnavailable
from .runtimes.sidecar import SIDECARS, Sidecar
from .runtimes.versions import installed_versions, missing_package

PACKAGES = (
    ("train, convert, run", "paddlepaddle", ("paddlepaddle", "paddlepaddle-gpu"), "pip install 'edgerecall[train]'"),
    ("run", "onnxruntime", ("onnxruntime",), "pip install 'edgerecall[onnx]'"),
    ("convert, run", "openvino", ("openvino",), "pip install 'edgerecall[openvino]'"),
    ("run", "ncnn", ("ncnn",), "pip install 'edgerecall[ncnn]'"),
    ("convert to ncnn", "pnnx", ("pnnx",), "pip install --no-deps pnnx"),
    ("predict --format parquet", "pyarrow", ("pyarrow",), "pip install 'edgerecall[parquet]'"),
)
SIDECAR_PURPOSES = {"lite": "convert, run", "paddle2onnx": "convert"}


@dataclass(frozen=True)
class Finding:
    """One line: what for, what, its state here, and the command that mends a gap (None: nothing to mend)."""

    purpose: str
    what: str
    state: str
    fix: str | None = None


def installed(names: tuple[str, ...]) -> str | None:
    """Name and version of the first installed distribution."""
    found = installed_versions(names)
    return next((f"{name} {text}" if len(names) > 1 else text for name, text in found.items()), None)


def python_finding() -> Finding:
    """Whether this Python is one of ours."""
    trains = sys.version_info[:2] <= (3, 13)
    fix = None if trains else "to train and convert: make the virtual environment with Python 3.10 to 3.13"
    return Finding("all", "Python", platform.python_version(), fix)


def core_finding() -> Finding:
    """Whether the C++ core was built."""
    try:
        from .runtimes import _native  # noqa: F401
    except ImportError as error:
        return Finding("all", "C++ core", f"missing: {error}", "pip install --force-reinstall --no-deps edgerecall")
    return Finding("all", "C++ core", "ok")


def sidecar_finding(sidecar: Sidecar) -> Finding:
    """Whether there is an interpreter with the sidecar's package."""
    purpose = SIDECAR_PURPOSES[sidecar.name]
    try:
        python = sidecar.find_python()
    except RuntimeUnavailable as error:
        return Finding(purpose, sidecar.package, str(error), f"unset {sidecar.variable}")
    if python is None:
        return Finding(purpose, sidecar.package, "missing", f"edgerecall doctor --fix {sidecar.name}")
    command = [python, "-s", "-c", f"from importlib.metadata import version; print(version('{sidecar.package}'))"]
    text = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() or "unknown version"
    where = "sidecar" if python.startswith(str(sidecar.folder)) else python
    return Finding(purpose, sidecar.package, text if python == sys.executable else f"{text} ({where})")


def gpu_finding() -> Finding | None:
    """Whether Paddle sees a GPU; None without Paddle."""
    if installed(("paddlepaddle", "paddlepaddle-gpu")) is None:
        return None
    try:
        import paddle
    except ImportError as error:
        return Finding("train", "GPU", "paddlepaddle cannot be imported", missing_package(error) or str(error))
    if not paddle.is_compiled_with_cuda():
        return Finding("train", "GPU", "this Paddle is a CPU build", "only for GPU training: install paddlepaddle-gpu")
    count = paddle.device.cuda.device_count()
    fix = None if count else "check the NVIDIA driver with nvidia-smi"
    return Finding("train", "GPU", f"{count} visible", fix)


def examine() -> list[Finding]:
    """All findings, in the order of the journey."""
    findings: list[Finding | None] = [python_finding(), core_finding()]
    for purpose, what, names, fix in PACKAGES:
        found = installed(names)
        findings.append(Finding(purpose, what, found or "missing", None if found else fix))
    findings += [*map(sidecar_finding, SIDECARS.values()), gpu_finding()]
    return [finding for finding in findings if finding is not None]
