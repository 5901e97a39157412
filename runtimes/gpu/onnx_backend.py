"""How a runtime describes itself that computes the ONNX artifact on an NVIDIA GPU. Standard library only."""

from __future__ import annotations

from ..core.versions import Package
from ..predictor.backend import Backend
from ..predictor.precision import GPU_TOLERANCE


def onnx_on_gpu(name: str, predictor: str, title: str, package: Package, order: int, built: str = "") -> Backend:
    """One of them. built: what becomes of the file, for tables."""
    return Backend(
        name=name,
        predictor=predictor,
        title=title,
        package=package,
        artifacts="onnxruntime",
        file_format=f"ONNX, opset 11 or newer{built}",
        quantisations=("fp32", "fp16"),
        executions=("fp32", "tf32"),
        devices=("gpu",),
        purpose="run on a GPU",
        tolerance=GPU_TOLERANCE,
        in_all=False,
        order=order,
    )
