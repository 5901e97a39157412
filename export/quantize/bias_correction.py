"""Bias correction: rounded weights move the mean of a layer's output; its bias takes that back.

Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction" (2019), equation 17, with the
means of the inputs measured on the calibration's images.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import numpy_helper

from ...runtimes.graphs.onnx_inner import attributes
from ...runtimes.graphs.onnx_qdq import HEAVY, QdqGraph

Means = dict[str, NDArray[np.float64]]
MEANS_OF = 64  # images; means of activations need fewer than the ends of their ranges


def correct_biases(plain: Any, quantised: Any, means: Means) -> None:
    """Moves the int32 biases of a QDQ model. plain: the float model that it was made from, whose operators have the
    same names. means: of the inputs of `corrected_inputs`, of each channel.

    Left as they are: layers without a bias or with one that others share, and products that are scaled (Gemm).
    """
    graph = QdqGraph(quantised)
    floats = {tensor.name: numpy_helper.to_array(tensor) for tensor in plain.graph.initializer}
    twins = {node.name: node for node in plain.graph.node if node.op_type in HEAVY}
    stored = {tensor.name: tensor for tensor in quantised.graph.initializer}
    uses = Counter(name for node in quantised.graph.node for name in node.input)
    for node in quantised.graph.node:
        twin = twins.get(node.name)
        if twin is None or len(node.input) < 3 or twin.input[0] not in means or twin.input[1] not in floats:
            continue
        weights, bias = graph.held(node.input[1]), graph.held(node.input[2])
        shared = bias is not None and (uses[bias.name] > 1 or uses[node.input[2]] > 1)
        scaled = any(attributes(twin).get(name, 1.0) != 1.0 for name in ("alpha", "beta"))
        if weights is None or bias is None or shared or scaled:
            continue
        lost = floats[twin.input[1]].astype(np.float64) - weights.values
        shift = moved_mean(twin, lost, means[twin.input[0]])
        integers = graph.constants[bias.name].astype(np.int64) + np.rint(shift / bias.step).astype(np.int64)
        ends = np.iinfo(np.int32)
        corrected = np.clip(integers, ends.min, ends.max).astype(np.int32)
        stored[bias.name].CopyFrom(numpy_helper.from_array(corrected, bias.name))


def corrected_inputs(plain: Any) -> list[str]:
    """The activations whose means are needed."""
    constants = {tensor.name for tensor in plain.graph.initializer}
    layers = [node for node in plain.graph.node if node.op_type in HEAVY and len(node.input) > 2]
    return list(dict.fromkeys(node.input[0] for node in layers if node.input[0] not in constants))


def moved_mean(node: Any, lost: NDArray[np.float64], mean: NDArray[np.float64]) -> NDArray[np.float64]:
    """By how much each output channel's mean fell, `(out,)`: what its weights lost times its inputs' means, `(in,)`.

    At the borders of a convolution, where it is fed zeros, it fell by less.
    """
    if node.op_type == "Conv":
        groups = attributes(node).get("group", 1)
        each = lost.reshape(groups, lost.shape[0] // groups, lost.shape[1], -1).sum(axis=3)
        return np.asarray(np.einsum("goi,gi->go", each, mean.reshape(groups, -1)).reshape(-1))
    if node.op_type == "Gemm" and attributes(node).get("transB", 0):
        lost = lost.T
    return np.asarray(mean @ lost)
