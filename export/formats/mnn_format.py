"""MNN's one file, from the ONNX model."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from ...runtimes.backends.mnn_predictor import PACKAGE
from ...runtimes.core.versions import needs
from ..context import Context, FormatFailed, fenced, own_step, run_step
from .onnx_format import any_onnx


def mnn(context: Context) -> dict[str, Path]:
    """Weights in float32. The converter runs in a folder of its own, with nothing of the environment that leads out."""
    if importlib.util.find_spec("MNN") is None:
        raise FormatFailed(needs(PACKAGE))
    target, work = context.place("mnn") / "model.mnn", context.scratch / "mnn"
    work.mkdir(exist_ok=True)
    convert(any_onnx(context), target, work)
    return {"model": target}


def convert(source: Path, target: Path, work: Path, *options: str) -> None:
    """Runs MNN's converter inside of `work`. FormatFailed with its reason."""
    command = own_step("mnn", source.resolve(), target.resolve(), *options)
    run_step(command, fenced(work), label="MNN's converter", folder=work)


def without_norms(model: Any) -> Any:
    """The ONNX model with norms written as sums: from opset 18 on, where the axes of a norm are an input, MNN takes
    it over the whole batch.
    """
    from onnx import helper

    nodes = []
    for node in model.graph.node:
        if node.op_type not in ("ReduceL1", "ReduceL2", "ReduceSumSquare"):
            nodes.append(node)
            continue
        (given, *axes), (made,) = node.input, node.output
        first = ("Abs", [given]) if node.op_type == "ReduceL1" else ("Mul", [given, given])
        nodes.append(helper.make_node(first[0], first[1], [f"{made}_each"], name=f"{made}_each"))
        summed = made if node.op_type != "ReduceL2" else f"{made}_sum"
        total = helper.make_node("ReduceSum", [f"{made}_each", *axes], [summed], name=summed)
        total.attribute.extend(node.attribute)
        nodes.append(total)
        if node.op_type == "ReduceL2":
            nodes.append(helper.make_node("Sqrt", [summed], [made], name=made))
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model
