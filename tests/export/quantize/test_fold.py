"""Folding an ONNX graph: the same numbers from fewer operators."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from edgerecall.export.quantize.fold import folded

pytestmark = pytest.mark.runtime
RNG = np.random.default_rng(0)


def constant(name: str, *shape: int, positive: bool = False) -> Any:
    array = RNG.standard_normal(shape).astype(np.float32)
    return numpy_helper.from_array(np.abs(array) + 0.5 if positive else array, name)


def model(nodes: list[Any], constants: list[Any], output: str, shape: list[Any]) -> Any:
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 8, 8])],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, shape)],
        constants,
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(made, full_check=True)
    return made


def same(made: Any, left: dict[str, int]) -> Any:
    """Folds it; checks the numbers and the operators that are left."""
    before = made.SerializeToString()
    found = folded(made)
    assert made.SerializeToString() == before
    x = RNG.standard_normal((2, 3, 8, 8)).astype(np.float32)
    expected, got = (ReferenceEvaluator(one).run(None, {"x": x})[0] for one in (made, found))
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)
    assert Counter(node.op_type for node in found.graph.node) == left
    return found


NORM = [constant(f"bn.{name}", 4, positive=name == "variance") for name in ("scale", "shift", "mean", "variance")]
NORM_NAMES = [tensor.name for tensor in NORM]


@pytest.mark.parametrize("bias", [False, True])
def test_a_batch_norm_and_a_bias_go_into_the_convolution(bias: bool) -> None:
    inputs = ["x", "w", "b"] if bias else ["x", "w"]
    nodes = [
        helper.make_node("Conv", inputs, ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("BatchNormalization", ["c", *NORM_NAMES], ["n"], epsilon=1e-3),
        helper.make_node("Constant", [], ["flat"], value=constant("", 4)),
        helper.make_node("Constant", [], ["to"], value=numpy_helper.from_array(np.array([1, 4, 1, 1]))),
        helper.make_node("Reshape", ["flat", "to"], ["added"]),
        helper.make_node("Add", ["n", "added"], ["a"]),
        helper.make_node("HardSwish", ["a"], ["h"]),
        helper.make_node("Identity", ["h"], ["y"]),
    ]
    constants = [constant("w", 4, 3, 3, 3), *NORM, *([constant("b", 4)] if bias else [])]
    found = same(model(nodes, constants, "y", ["N", 4, 8, 8]), {"Conv": 1, "HardSwish": 1})
    assert [len(node.input) for node in found.graph.node] == [3, 1] and len(found.graph.initializer) == 2


def test_a_product_and_its_bias_become_one() -> None:
    nodes = [
        helper.make_node("GlobalAveragePool", ["x"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Identity", ["w"], ["v"]),
        helper.make_node("MatMul", ["f", "v"], ["m"]),
        helper.make_node("Add", ["b", "m"], ["y"]),
    ]
    found = same(
        model(nodes, [constant("w", 3, 5), constant("b", 5)], "y", ["N", 5]),
        {"GlobalAveragePool": 1, "Flatten": 1, "Gemm": 1},
    )
    assert found.graph.output[0].name == "y"


def test_what_another_operator_takes_too_is_left() -> None:
    """The convolution's own output is an operand elsewhere: its batch norm must stay a batch norm."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("BatchNormalization", ["c", *NORM_NAMES], ["n"]),
        helper.make_node("Add", ["n", "c"], ["y"]),
    ]
    same(
        model(nodes, [constant("w", 4, 3, 1, 1), *NORM], "y", ["N", 4, 8, 8]),
        {"Conv": 1, "BatchNormalization": 1, "Add": 1},
    )


def test_a_constant_over_places_is_no_bias() -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("Add", ["c", "map"], ["y"]),
    ]
    same(model(nodes, [constant("w", 8, 3, 1, 1), constant("map", 8, 8)], "y", ["N", 8, 8, 8]), {"Conv": 1, "Add": 1})


def test_a_weight_that_two_convolutions_share() -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("BatchNormalization", ["c", *NORM_NAMES], ["n"]),
        helper.make_node("Conv", ["x", "w"], ["d"]),
        helper.make_node("Add", ["n", "d"], ["y"]),
    ]
    same(model(nodes, [constant("w", 4, 3, 1, 1), *NORM], "y", ["N", 4, 8, 8]), {"Conv": 2, "Add": 1})
