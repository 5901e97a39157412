"""ONNX, by paddle2onnx."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from .context import Context, own_step, run_step


def onnx(context: Context) -> dict[str, Path]:
    """From the PIR form, else from the older one."""
    model, params = context.model("pir", "pdmodel")
    target = context.place("onnx") / "model.onnx"
    run_step(own_step("onnx", model, params, target), label="paddle2onnx")
    return {"model": target}


def any_onnx(context: Context) -> Path:
    """The bundle's ONNX model, or one made for a while when the bundle has none."""
    model = context.folder / "onnx" / "model.onnx"
    return model if model.is_file() else onnx(replace(context, folder=context.scratch, placed=[]))["model"]
