"""ncnn's two files, by pnnx from the ONNX model."""

from __future__ import annotations

import shutil
from pathlib import Path

from ...runtimes.core.package_folders import package_folders
from ..context import Context, FormatFailed, run_step
from .onnx_format import any_onnx


def pnnx_program() -> Path:
    """The converter inside pnnx's wheel. Its Python side, which needs torch, is left alone."""
    for place in package_folders("pnnx"):
        if (place / "pnnx").is_file():
            return place / "pnnx"
    raise FormatFailed("needs pnnx: run 'pip install --no-deps pnnx'")


def ncnn(context: Context) -> dict[str, Path]:
    """Weights kept in float32: pnnx halves them unless told not to."""
    if "ncnn" in context.models:  # it came so
        place = context.place("ncnn")
        model, weights = (Path(shutil.copyfile(file, place / f"model{file.suffix}")) for file in context.model("ncnn"))
        return {"model": model, "weights": weights}
    program = pnnx_program()
    work = context.scratch / "pnnx"
    work.mkdir()
    source = work / "model.onnx"  # it writes a dozen files beside its input
    shutil.copyfile(any_onnx(context), source)
    shape = ",".join(map(str, (1, *context.input_shape)))
    output = run_step([str(program), str(source), f"inputshape=[{shape}]", "fp16=0"], label="pnnx")
    place, files = context.place("ncnn"), {}
    for role, suffix in (("model", "param"), ("weights", "bin")):
        made = work / f"model.ncnn.{suffix}"
        if not made.is_file():
            lines = [line for line in output.splitlines() if line.strip()]
            raise FormatFailed(f"pnnx wrote no {made.name}: {lines[-1] if lines else 'no reason given'}")
        files[role] = Path(shutil.copyfile(made, place / f"model.{suffix}"))
    return files
