"""`edgerecall doctor`: what this machine can train, convert and run."""

from __future__ import annotations

import platform
import subprocess
import sys
from dataclasses import dataclass

import click

from ..cross.executable_stack import clear, is_refused, libraries_with
from ..runtimes.core.errors import RuntimeUnavailable
from ..runtimes.core.versions import (
    PACKAGES,
    PADDLE,
    TRAINING,
    Package,
    install_command,
    installed_versions,
    missing_package,
)
from ..runtimes.gpu.nvml import PACKAGE as NVML
from ..runtimes.gpu.nvml import gpu_names
from ..runtimes.predictor.registry import found
from ..runtimes.sidecars.sidecar import SIDECARS, Sidecar
from .console import console

# What is no runtime's own package: purpose, module.
OTHERS = (("convert to ncnn", "pnnx"), ("convert to LiteRT", "onnx2tf"), ("predict --format parquet", "pyarrow"))
FIX_MNN = "edgerecall doctor --fix mnn"
SIDECAR_PURPOSES = {"lite": "convert, run", "paddle2onnx": "convert"}


@dataclass(frozen=True)
class Finding:
    """One line: what for, what, its state here, and the command that mends a gap (None: nothing to mend)."""

    purpose: str
    what: str
    state: str
    fix: str | None = None


def installed(package: Package) -> str | None:
    """Version of a package's installed distribution, with its name where it may be another's."""
    versions = installed_versions(package.distributions)
    return next((f"{name} {text}" if package.others else text for name, text in versions.items()), None)


def package_finding(purpose: str, package: Package) -> Finding:
    """Whether a package is installed."""
    state = installed(package)
    if state and package.module == "MNN" and is_refused() and libraries_with(package.distribution):
        return Finding(purpose, package.distribution, f"{state} asks for an executable stack", FIX_MNN)
    fix = None if state else install_command(package, TRAINING.get(package.module, ""))
    return Finding(purpose, package.distribution, state or "missing", fix)


def python_finding() -> Finding:
    """Whether this Python is one of ours."""
    trains = sys.version_info[:2] <= (3, 13)
    fix = None if trains else "to train and convert: make the virtual environment with Python 3.10 to 3.13"
    return Finding("all", "Python", platform.python_version(), fix)


def core_finding() -> Finding:
    """Whether the C++ core was built."""
    try:
        from ..runtimes import _native  # noqa: F401
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


def nvidia_finding() -> Finding | None:
    """The GPU that the driver tells of; None where the package that asks it is not installed."""
    if installed(NVML) is None:
        return None
    try:
        name, capability, driver = gpu_names()
    except RuntimeUnavailable as error:
        return Finding("run", "NVIDIA GPU", str(error))
    return Finding("run", "NVIDIA GPU", f"{name} ({capability}), driver {driver}")


def gpu_finding() -> Finding | None:
    """Whether Paddle sees a GPU; None without Paddle."""
    if installed(PADDLE) is None:
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
    for backend in found().backends.values():
        if backend.package and not backend.in_core and not backend.sidecar:
            findings.append(package_finding(backend.purpose, backend.package))
    findings += [package_finding(purpose, PACKAGES[module]) for purpose, module in OTHERS]
    for name, reason in found().broken.items():
        findings.append(
            Finding("run", f"entry point {name}", f"cannot be used: {reason}", "update or remove its package")
        )
    findings += [*map(sidecar_finding, SIDECARS.values()), nvidia_finding(), gpu_finding()]
    return [finding for finding in findings if finding is not None]


@click.command()
@click.option(
    "--fix",
    type=click.Choice(["lite", "paddle2onnx", "mnn"]),
    help="lite, paddle2onnx: make a sidecar, an environment of an older Python, for it. mnn: have its libraries ask for"
    " no executable stack, which newer systems refuse.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(fix: str | None, as_json: bool) -> int:
    """What this machine can train, convert and run, and the exact fix for the rest."""
    if fix == "mnn":
        changed = libraries_with("MNN")
        for library in changed:
            clear(library)
        console().print(f"MNN: {len(changed)} libraries ask for an executable stack no longer")
        return 0
    if fix is not None:
        from ..cross.interpreters import debian_python

        sidecar = SIDECARS[fix]
        if sidecar.runs_here():
            console().print(f"{sidecar.package}: installed in this environment, no sidecar needed")
            return 0
        with console(stderr=True).status(f"making the {sidecar.package} sidecar"):
            python = sidecar.make(lambda versions: debian_python(versions, console(stderr=True).print))
        console().print(f"{sidecar.package} sidecar: {python}", soft_wrap=True)
        return 0
    findings = examine()
    if as_json:
        import json

        click.echo(json.dumps([vars(finding) for finding in findings], indent=1))
        return 0
    from rich.table import Table

    table = Table(show_edge=False, pad_edge=False)
    for title in ("for", "what", "here", "fix"):
        table.add_column(title, overflow="fold")
    for finding in findings:
        table.add_row(finding.purpose, finding.what, finding.state, finding.fix or "")
    console().print(table)
    return 0
