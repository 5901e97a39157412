"""ONNX, by paddle2onnx."""

from __future__ import annotations

from pathlib import Path

from .context import Context, own_step, run_step


def onnx(context: Context) -> dict[str, Path]:
    """From the PIR form, else from the older one."""
    model, params = context.model("pir", "pdmodel")
    target = context.place("onnx") / "model.onnx"
    run_step(own_step("onnx", model, params, target), label="paddle2onnx")
    return {"model": target}
