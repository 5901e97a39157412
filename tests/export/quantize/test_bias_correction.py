"""Bias correction: the mean of a layer's output is float's again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edgerecall.export.quantize.onnx_int8 import quantize_onnx
from edgerecall.export.quantize.recipes import Int8Recipe

pytestmark = pytest.mark.runtime
RNG = np.random.default_rng(0)


def weights(*shape: int) -> NDArray[np.float32]:
    """With one large value in each output channel, so that the others are rounded coarsely, all one way."""
    array = np.full(shape, 0.0149, np.float32) + 1e-4 * RNG.standard_normal(shape).astype(np.float32)
    array.reshape(shape[0], -1)[:, 0] = 1.9
    return array


def layer(kind: str, **attributes: Any) -> Any:
    """A model of one layer behind a Relu."""
    shape: tuple[int, ...] = (8, 8, 3, 3) if kind == "Conv" else (8, 8)
    if attributes.get("group", 1) > 1:
        shape = (8, 8 // attributes["group"], 3, 3)
    array = weights(*shape)
    if kind == "Gemm" and not attributes.get("transB"):
        array = np.ascontiguousarray(array.T)
    bias = RNG.standard_normal(8).astype(np.float32)
    given: list[Any] = ["n", 8, 6, 6] if kind == "Conv" else ["n", 8]
    graph = helper.make_graph(
        [
            helper.make_node("Relu", ["x"], ["r"], name="relu"),
            helper.make_node(kind, ["r", "w", "b"], ["y"], name="layer", **attributes),
            helper.make_node("Relu", ["y"], ["z"], name="last"),
        ],
        "one",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, given)],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, ["n", 8, 4, 4] if kind == "Conv" else ["n", 8])],
        [numpy_helper.from_array(array, "w"), numpy_helper.from_array(bias + 5, "b")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def mean_output(path: Path, tensors: NDArray[np.float32]) -> NDArray[np.float64]:
    """Of each channel."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    found = session.run(None, {"x": tensors})[0]
    return np.asarray(found.mean(axis=(0, *range(2, found.ndim)), dtype=np.float64))


@pytest.mark.parametrize(
    ("kind", "attributes"),
    [
        ("Conv", {"pads": [0, 0, 0, 0]}),
        ("Conv", {"group": 2}),
        ("Conv", {"group": 8}),
        ("Gemm", {"transB": 1}),
        ("Gemm", {}),
    ],
)
def test_means_come_back(tmp_path: Path, kind: str, attributes: dict[str, Any]) -> None:
    source = tmp_path / "float.onnx"
    onnx.save(layer(kind, **attributes), str(source))
    shape = (64, 8, 6, 6) if kind == "Conv" else (64, 8)
    tensors = (RNG.random(shape) * np.linspace(0.5, 2, 8).reshape(1, 8, *[1] * (len(shape) - 2))).astype(np.float32)
    truth = mean_output(source, tensors)
    lost = {}
    for corrected in (False, True):
        target = tmp_path / f"{corrected}.onnx"
        quantize_onnx(source, tensors, Int8Recipe(calibration="minmax", bias_correction=corrected), target)
        lost[corrected] = np.abs(mean_output(target, tensors) - truth).max()
    assert lost[False] > 0.01 and lost[True] < 0.35 * lost[False], lost


@pytest.mark.parametrize("attributes", [{"alpha": 0.5}, {"beta": 2.0}])
def test_scaled_products_are_left(tmp_path: Path, attributes: dict[str, Any]) -> None:
    source, tensors = tmp_path / "float.onnx", RNG.random((64, 8)).astype(np.float32)
    onnx.save(layer("Gemm", transB=1, **attributes), str(source))
    models = []
    for corrected in (False, True):
        target = tmp_path / f"{corrected}.onnx"
        quantize_onnx(source, tensors, Int8Recipe(calibration="minmax", bias_correction=corrected), target)
        models.append(target.read_bytes())
    assert models[0] == models[1]
