"""ONNX with its weights as float16, widened by a Cast in front of each operator: half the file, the same arithmetic."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

SMALL = 64  # elements, below which a weight is left: the Cast would be larger


def halve_onnx(source: Path, target: Path) -> None:
    """Writes the model. Weights that do not fit float16's range stay float32."""
    from ...runtimes.graphs.onnx_fold import folded

    model = folded(onnx.load(str(source)))
    casts, kept = [], []
    for tensor in model.graph.initializer:
        array = numpy_helper.to_array(tensor)
        if array.dtype != np.float32 or array.size < SMALL or np.abs(array).max() > np.finfo(np.float16).max:
            kept.append(tensor)
            continue
        half = f"{tensor.name}.fp16"
        kept.append(numpy_helper.from_array(array.astype(np.float16), half))
        casts.append(
            helper.make_node("Cast", [half], [tensor.name], name=f"{tensor.name}.cast", to=onnx.TensorProto.FLOAT)
        )
    nodes = [*casts, *model.graph.node]
    del model.graph.initializer[:], model.graph.node[:]
    model.graph.initializer.extend(kept)
    model.graph.node.extend(nodes)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, str(target))
