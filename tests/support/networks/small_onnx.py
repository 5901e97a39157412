"""A small convolutional network in ONNX, written by hand, in the shapes that exporters give it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper, save_model

SIDE, DIM = 32, 16


def constant(name: str, values: Any, kind: Any = np.float32) -> Any:
    """An initialiser."""
    return numpy_helper.from_array(np.asarray(values, kind), name)


def network(
    batch: int | None = None,
    sides: Sequence[int | None] = (SIDE, SIDE),
    channels_last: bool = False,
    opset: int = 17,
    input_type: int = TensorProto.FLOAT,
    name: str = "images",
    token: bool = False,
    scale: float = 1.0,
) -> Any:
    """Convolution, batch norm, dropout, pooling, a layer of `DIM` features (`features`), and a classifier (`logits`).

    batch, sides: declared sizes, None where free. token: a constant `(1, 1, 8)` is joined to each image's 4 x 4 tokens,
    as a transformer's.
    """
    draw = np.random.default_rng(3)
    normal = lambda *shape: draw.standard_normal(shape) * scale / np.sqrt(np.prod(shape[1:]))  # noqa: E731
    free = ["n" if batch is None else batch, *("side" if side is None else side for side in sides)]
    shape = [*free, 3] if channels_last else [free[0], 3, *free[1:]]
    constants = [
        constant("w", normal(8, 3, 3, 3)),
        constant("gamma", 1 + normal(8) / 4),
        constant("beta", normal(8)),
        constant("mean", normal(8) / 4),
        constant("var", 1 + normal(8) ** 2),
        constant("dense", normal(8, DIM)),
        constant("classes", normal(DIM, 5)),
    ]
    nodes = [
        helper.make_node("Conv", ["planes", "w"], ["c"], name="conv", pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("BatchNormalization", ["c", "gamma", "beta", "mean", "var"], ["b"], name="norm"),
        helper.make_node("Relu", ["b"], ["r"], name="relu"),
        helper.make_node("Identity", ["r"], ["i"], name="identity"),
        helper.make_node("Dropout", ["i"], ["d"], name="dropout"),
    ]
    if channels_last:
        nodes.insert(0, helper.make_node("Transpose", [name], ["planes"], name="planes", perm=[0, 3, 1, 2]))
    else:
        nodes[0].input[0] = name
    if input_type != TensorProto.FLOAT:
        nodes[0].input[0] = "widened"
        nodes.insert(0, helper.make_node("Cast", [name], ["widened"], name="widen", to=TensorProto.FLOAT))
    if token:
        constants += [
            constant("cls", normal(1, 1, 8)),
            constant("tokens", [batch or -1, 8, 16], np.int64),
            constant("again", [batch or 0, -1, 8], np.int64),
        ]
        nodes += [
            helper.make_node("AveragePool", ["d"], ["p"], name="patches", kernel_shape=[4, 4], strides=[4, 4]),
            helper.make_node("Reshape", ["p", "tokens"], ["t"], name="tokens"),
            helper.make_node("Transpose", ["t"], ["s"], name="sequence", perm=[0, 2, 1]),
            helper.make_node("Concat", ["cls", "s"], ["j"], name="join", axis=1),
            helper.make_node("Reshape", ["j", "again"], ["k"], name="again"),
            helper.make_node("ReduceMean", ["k"], ["flat"], name="pool", axes=[1], keepdims=0),
        ]
    else:
        nodes += [
            helper.make_node("GlobalAveragePool", ["d"], ["g"], name="pool"),
            # As PyTorch writes `x.view(x.shape[0], -1)`.
            helper.make_node("Shape", ["d"], ["sizes"], name="sizes"),
            helper.make_node("Gather", ["sizes", "zero"], ["count"], name="count", axis=0),
            helper.make_node("Unsqueeze", ["count", "axis"], ["counts"], name="counts"),
            helper.make_node("Concat", ["counts", "rest"], ["flatter"], name="flatter", axis=0),
            helper.make_node("Reshape", ["g", "flatter"], ["flat"], name="flatten"),
        ]
        constants += [constant("zero", 0, np.int64), constant("axis", [0], np.int64), constant("rest", [-1], np.int64)]
        if opset < 13:
            nodes[-3] = helper.make_node("Unsqueeze", ["count"], ["counts"], name="counts", axes=[0])
    nodes += [
        helper.make_node("MatMul", ["flat", "dense"], ["features"], name="features"),
        helper.make_node("MatMul", ["features", "classes"], ["logits"], name="classify"),
    ]
    used = {given for node in nodes for given in node.input}
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info(name, input_type, shape)],
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, [free[0], DIM])],
        [one for one in constants if one.name in used],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def write(model: Any, path: Path) -> Path:
    """Saved; the path."""
    save_model(model, str(path))
    return path
