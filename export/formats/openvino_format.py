"""OpenVINO IR."""

from __future__ import annotations

from pathlib import Path

from ..context import Context, own_step, run_step
from .onnx_format import any_onnx


def openvino(context: Context) -> dict[str, Path]:
    """From the older Paddle form, which OpenVINO reads itself; without it, through ONNX."""
    target = context.place("openvino") / "model.xml"
    if "pdmodel" in context.models:
        source = context.models["pdmodel"][0]
    else:
        source = any_onnx(context)
    run_step(own_step("openvino", source, target), label="OpenVINO's converter")
    return {"model": target, "weights": target.with_suffix(".bin")}
