"""ONNX: the model that came, or by paddle2onnx."""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from pathlib import Path

from ...runtimes.sidecars.sidecar import PADDLE2ONNX
from ...runtimes.worker.client import sidecar_command
from ..context import Context, own_step, run_step, sidecar_python


def onnx(context: Context) -> dict[str, Path]:
    """From the PIR form, else from the older one; in the sidecar where this Python cannot have paddle2onnx."""
    if "onnx" in context.models:
        (given,) = context.models["onnx"]
        return {"model": Path(shutil.copyfile(given, context.place("onnx") / "model.onnx"))}
    python = sidecar_python(PADDLE2ONNX)
    model, params = context.model("pir", "pdmodel")
    target = context.place("onnx") / "model.onnx"
    command = own_step("onnx", model, params, target)
    if python != sys.executable:
        command = [*sidecar_command(python, "edgerecall.export.steps"), "onnx", *map(str, (model, params, target))]
    run_step(command, label="paddle2onnx")
    return {"model": target}


def any_onnx(context: Context) -> Path:
    """The bundle's ONNX model, or one made for a while when the bundle has none."""
    model = context.folder / "onnx" / "model.onnx"
    return model if model.is_file() else onnx(replace(context, folder=context.scratch, placed=[]))["model"]
