"""Paddle Lite `.nb` files, by the optimiser of the Lite sidecar."""

from __future__ import annotations

import json
from pathlib import Path

from ...runtimes.sidecars.sidecar import LITE
from ...runtimes.worker.client import sidecar_command
from ..context import Context, FormatFailed, own_step, run_step, sidecar_python


def ready_model(context: Context) -> tuple[Path, Path]:
    """The older Paddle form with the passes applied that Lite needs; made once."""
    model, params = context.model("pdmodel")
    ready = context.scratch / "lite_ready.pdmodel"
    if not ready.is_file():
        output = run_step(own_step("lite_ready", model, ready), label="Lite passes")
        context.notes["lite_passes"] = json.loads(output.strip().splitlines()[-1])
    return ready, params


def convert(context: Context, target: str, places: str) -> dict[str, Path]:
    """One `.nb`. The optimiser may end with exit code 0 without a file, so the file is what counts."""
    python = sidecar_python(LITE)
    model, params = ready_model(context)
    output = context.place(f"lite-{target}") / "model"
    command = sidecar_command(python, "edgerecall.export.formats.lite_opt_main")
    text = run_step([*command, str(model), str(params), str(output), places], label="Paddle Lite's optimiser")
    result = output.with_suffix(".nb")
    if not result.is_file():
        errors = [line for line in text.splitlines() if "rror" in line]
        raise FormatFailed(f"Paddle Lite's optimiser wrote no file: {errors[-1] if errors else 'no reason given'}")
    return {"model": result}


def x86(context: Context) -> dict[str, Path]:
    """For x86-64."""
    return convert(context, "x86_64", "x86")


def armv8(context: Context) -> dict[str, Path]:
    """For 64-bit ARM."""
    return convert(context, "aarch64", "arm")


def armv7(context: Context) -> dict[str, Path]:
    """For 32-bit ARM."""
    return convert(context, "armv7l", "arm")
