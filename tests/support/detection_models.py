"""Small detection networks whose answers are known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

SIDE, BINS = 64, 8  # of the input; bins of a side's distribution


def _saved(path: Path, nodes: list[onnx.NodeProto], constants: dict[str, npt.NDArray], outputs: list[str]) -> Path:
    inputs = [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, SIDE, SIDE])]
    told = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
    kept = [numpy_helper.from_array(value.astype(value.dtype), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "detector", inputs, told, kept)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path


def red_squares(path: Path, strides: tuple[int, ...] = (8, 16)) -> Path:
    """An ONNX file with heads as PicoDet's: a cell that is red has a high score, on the finest grid half of it; boxes
    are as large as cells.
    """
    nodes, constants, scores, distances = [], {}, [], []
    for stride in strides:
        cells = (SIDE // stride) ** 2
        weight = np.zeros((1, 3, stride, stride), np.float32)
        weight[0, 0], weight[0, 1] = 20 / stride**2, -20 / stride**2
        bins = np.full((1, cells, 4, BINS), -50, np.float32)
        bins[..., :2] = 0  # 0 and 1 alike: half a stride
        constants |= {
            f"w{stride}": weight,
            f"b{stride}": np.full(1, -10, np.float32),
            f"n{stride}": np.asarray([1, cells, 1], np.int64),
            f"f{stride}": np.asarray(0.5 if stride == strides[0] else 1, np.float32),
            f"d{stride}": bins.reshape(1, cells, 4 * BINS),
        }
        nodes += [
            helper.make_node("Conv", ["image", f"w{stride}", f"b{stride}"], [f"c{stride}"], strides=[stride, stride]),
            helper.make_node("Sigmoid", [f"c{stride}"], [f"g{stride}"]),
            helper.make_node("Mul", [f"g{stride}", f"f{stride}"], [f"m{stride}"]),
            helper.make_node("Reshape", [f"m{stride}", f"n{stride}"], [f"score{stride}"]),
            helper.make_node("Identity", [f"d{stride}"], [f"distance{stride}"]),
        ]
        scores.append(f"score{stride}")
        distances.append(f"distance{stride}")
    return _saved(path, nodes, constants, [*scores, *distances])


def always(path: Path, rows: list[list[float]]) -> Path:
    """An ONNX file that finds these rows (class, score, xmin, ymin, xmax, ymax of the input) in every picture."""
    constants = {"rows": np.asarray(rows, np.float32).reshape(-1, 6), "none": np.asarray(0, np.float32)}
    nodes = [
        helper.make_node("ReduceMean", ["image"], ["mean"], keepdims=0),
        helper.make_node("Mul", ["mean", "none"], ["zero"]),
        helper.make_node("Add", ["rows", "zero"], ["boxes"]),
    ]
    return _saved(path, nodes, constants, ["boxes"])
