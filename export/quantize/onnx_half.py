"""ONNX with its weights as float16, widened by a Cast in front of each operator: half the file, the same arithmetic;
or with weights that float16 holds, for converters which would cut the rest off.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

SMALL = 64  # elements, below which a weight is left: the Cast would be larger


def halve_onnx(source: Path, target: Path) -> None:
    """Writes the model. Weights that do not fit float16's range stay float32."""
    from ...runtimes.graphs.onnx_fold import folded

    model = folded(onnx.load(str(source)))
    casts, kept = [], []
    for tensor in model.graph.initializer:
        array = numpy_helper.to_array(tensor)
        if array.size < SMALL or not fits(array):
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


def fits(array: NDArray[Any]) -> bool:
    """Whether float32 values are within float16's range."""
    return array.dtype == np.float32 and bool(np.abs(array).max(initial=0) <= np.finfo(np.float16).max)


def round_onnx(source: Path, target: Path) -> None:
    """Writes the folded model, its float32 weights rounded to the nearest float16: MNN's converter (3.6) cuts
    bits off instead, which moves embeddings several times as far.
    """
    from ...runtimes.graphs.onnx_fold import folded

    model = folded(onnx.load(str(source)))
    for tensor in model.graph.initializer:
        array = numpy_helper.to_array(tensor)
        if fits(array):
            tensor.CopyFrom(numpy_helper.from_array(array.astype(np.float16).astype(np.float32), tensor.name))
    onnx.save(model, str(target))
