"""What a format needs to make its artifact: where the models are and where to write."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from ..runtimes.core.errors import EdgeRecallError, InputError, RuntimeUnavailable
from ..runtimes.core.text import one_line
from ..runtimes.sidecars.sidecar import Sidecar
from ..runtimes.worker.client import own_command

STEP_TIMEOUT_S = 900
FULL_DISK = ("No space left on device", "File too large")


class FormatFailed(EdgeRecallError):
    """A format could not be made; the message is the reason that the manifest lists."""


class DiskFull(InputError):
    """A converter found no space left: no other format would fare better."""


@dataclass
class Context:
    """folder: the bundle under construction. models: forms at hand: `pir` and `pdmodel` -> (model, params), `onnx` ->
    (model,).

    input_shape: `(3, H, W)` of the model's input. notes: what a format wants the manifest to remember (passes applied).
    placed: folders made for formats so far.
    """

    folder: Path
    scratch: Path
    models: dict[str, tuple[Path, ...]]
    input_shape: tuple[int, int, int]
    reasons: dict[str, str] = field(default_factory=dict)
    notes: dict[str, object] = field(default_factory=dict)
    placed: list[Path] = field(default_factory=list)

    def model(self, *preferred: str) -> tuple[Path, ...]:
        """The first of the preferred forms; FormatFailed with the reason when none is there."""
        for form in preferred:
            if form in self.models:
                return self.models[form]
        form = preferred[0]
        raise FormatFailed(self.reasons.get(form, f"there is no {form} form of the model"))

    def place(self, name: str) -> Path:
        """A new folder for a format's files."""
        folder = self.folder / name
        folder.mkdir(parents=True, exist_ok=True)
        self.placed.append(folder)
        return folder


def run_step(
    command: list[str], environment: dict[str, str] | None = None, label: str = "step", folder: Path | None = None
) -> str:
    """Runs a converter in a process of its own; returns its output. FormatFailed with its last telling line. folder:
    the one that it runs in.

    Converters crash, print and change global state: none of them shares our process.
    """
    try:
        result = subprocess.run(
            command,
            env=environment,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=STEP_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise FormatFailed(f"{label} did not end within {STEP_TIMEOUT_S} s") from error
    output = result.stdout.decode(errors="replace")
    full = next((text for text in FULL_DISK if text in output), None)
    if result.returncode != 0 and full:
        raise DiskFull(f"cannot write in {label}: {full}; free some space at the bundle and in {tempfile.gettempdir()}")
    if result.returncode != 0:
        how = f"signal {-result.returncode}" if result.returncode < 0 else f"exit code {result.returncode}"
        raise FormatFailed(f"{label} failed ({how}): {telling_line(output)}")
    return output


def telling_line(output: str) -> str:
    """The last line of a converter's output that looks like the reason."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    for marker in ("StepError:", "Error:", "error:", "Check failed", "[F "):
        found = [line for line in lines if marker in line]
        if found:
            return one_line(found[-1].removeprefix("StepError: "))
    return one_line(lines[-1]) if lines else "no output"


def sidecar_python(sidecar: Sidecar) -> str:
    """The interpreter with a sidecar's package, this one if it has it; FormatFailed with the remedy when none has."""
    try:
        python = sidecar.find_python()
    except RuntimeUnavailable as error:
        raise FormatFailed(str(error)) from error
    if python is None:
        version = ".".join(map(str, sys.version_info[:2]))
        raise FormatFailed(
            f"needs {sidecar.package}, which Python {version} here lacks: run 'edgerecall doctor --fix {sidecar.name}'"
        )
    return python


def fenced(work: Path) -> dict[str, str]:
    """What a converter of somebody else's gets of the environment: nothing that leads out of its folder."""
    kept = ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "LANG", "TMPDIR")
    return {**{name: os.environ[name] for name in kept if name in os.environ}, "HOME": str(work)}


def own_step(name: str, *arguments: str | Path) -> list[str]:
    """The command of one of our own steps (see `steps`)."""
    return own_command("edgerecall.export.steps", name, *map(str, arguments))
