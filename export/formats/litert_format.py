"""LiteRT's one file (`.tflite`), from the ONNX model."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

from ...runtimes.core.versions import needs
from ..context import Context, FormatFailed, fenced, own_step, run_step
from .onnx_format import any_onnx


def litert(context: Context) -> dict[str, Path]:
    """Weights in float32; images as `(N, H, W, 3)`. The converter runs in a folder of its own."""
    if "litert" in context.models:  # it came so
        (model,) = context.model("litert")
        return {"model": Path(shutil.copyfile(model, context.place("litert") / "model.tflite"))}
    if importlib.util.find_spec("onnx2tf") is None:
        raise FormatFailed(needs("onnx2tf"))
    target, work = context.place("litert") / "model.tflite", context.scratch / "litert"
    work.mkdir(exist_ok=True)
    convert(any_onnx(context), target, work)
    return {"model": target}


def convert(source: Path, target: Path, work: Path) -> None:
    """Runs onnx2tf inside of `work`. FormatFailed with its reason."""
    command = own_step("litert", source.resolve(), target.resolve())
    run_step(command, fenced(work), label="onnx2tf", folder=work)
