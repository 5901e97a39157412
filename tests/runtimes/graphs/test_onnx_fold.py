"""Folding an ONNX graph: the same numbers from fewer operators."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from edgerecall.runtimes.graphs.onnx_fold import folded

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


def test_a_product_over_places_stays_one() -> None:
    """Gemm takes matrices alone: what is not known to be one is left."""
    nodes = [helper.make_node("MatMul", ["x", "w"], ["m"]), helper.make_node("Add", ["m", "b"], ["y"])]
    same(model(nodes, [constant("w", 8, 5), constant("b", 5)], "y", ["N", 3, 8, 5]), {"MatMul": 1, "Add": 1})


def test_a_constant_for_each_row_of_the_batch_is_no_bias() -> None:
    nodes = [helper.make_node("Conv", ["x", "w"], ["c"]), helper.make_node("Add", ["c", "rows"], ["y"])]
    same(
        model(nodes, [constant("w", 2, 3, 1, 1), constant("rows", 2, 1, 1, 1)], "y", ["N", 2, 8, 8]),
        {"Conv": 1, "Add": 1},
    )


@pytest.mark.parametrize("shape", [(4, 1, 1), (1, 4, 1, 1)])
def test_a_constant_for_each_channel_is_one(shape: tuple[int, ...]) -> None:
    nodes = [helper.make_node("Conv", ["x", "w"], ["c"]), helper.make_node("Add", ["c", "b"], ["y"])]
    same(model(nodes, [constant("w", 4, 3, 1, 1), constant("b", *shape)], "y", ["N", 4, 8, 8]), {"Conv": 1})


def test_a_batch_norm_that_trains_is_left() -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("BatchNormalization", ["c", *NORM_NAMES], ["y", "m", "v"], training_mode=1),
    ]
    same(model(nodes, [constant("w", 4, 3, 1, 1), *NORM], "y", ["N", 4, 8, 8]), {"Conv": 1, "BatchNormalization": 1})


def test_a_convolution_over_one_dimension() -> None:
    nodes = [
        helper.make_node("Reshape", ["x", "to"], ["r"]),
        helper.make_node("Conv", ["r", "w"], ["c"]),
        helper.make_node("BatchNormalization", ["c", *NORM_NAMES], ["y"]),
    ]
    to = numpy_helper.from_array(np.array([0, 3, 64]), "to")
    same(model(nodes, [to, constant("w", 4, 3, 3), *NORM], "y", ["N", 4, 62]), {"Reshape": 1, "Conv": 1})


def test_groups_and_padding_are_kept() -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], group=3, auto_pad="SAME_UPPER", strides=[2, 2]),
        helper.make_node("BatchNormalization", ["c", *(f"{name}3" for name in NORM_NAMES)], ["y"]),
    ]
    norm = [constant(f"{name}3", 3, positive=name.endswith("variance")) for name in NORM_NAMES]
    same(model(nodes, [constant("w", 3, 1, 3, 3), *norm], "y", ["N", 3, 4, 4]), {"Conv": 1})


def test_a_dropout_whose_mask_is_taken_stays() -> None:
    nodes = [
        helper.make_node("Dropout", ["x"], ["d", "mask"]),
        helper.make_node("Cast", ["mask"], ["m"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["d", "m"], ["y"]),
    ]
    same(model(nodes, [], "y", ["N", 3, 8, 8]), {"Dropout": 1, "Cast": 1, "Mul": 1})


def test_a_large_weight_is_turned_but_a_small_one_is_not_blown_up() -> None:
    """A transposed weight becomes one; a constant of 400 MB is not written out, nor is chance made a constant."""
    large = numpy_helper.from_array(RNG.standard_normal((2049, 512)).astype(np.float32), "w")
    side = numpy_helper.from_array(np.array([5000, 20000]), "side")
    nodes = [
        helper.make_node("Transpose", ["w"], ["v"]),
        helper.make_node("ConstantOfShape", ["side"], ["zeros"]),
        helper.make_node("ReduceSum", ["zeros"], ["none"], keepdims=0),
        helper.make_node("RandomNormalLike", ["v"], ["chance"]),
        helper.make_node("ReduceSum", ["chance"], ["some"], keepdims=0),
        helper.make_node("Mul", ["some", "none"], ["nothing"]),
        helper.make_node("GlobalAveragePool", ["x"], ["p"]),
        helper.make_node("Add", ["p", "nothing"], ["y"]),
    ]
    found = folded(model(nodes, [large, side], "y", ["N", 3, 1, 1]))
    kinds = {node.op_type for node in found.graph.node}
    assert "Transpose" not in kinds and {"ConstantOfShape", "RandomNormalLike"} <= kinds
    assert found.ByteSize() < 5_000_000


def test_a_name_that_is_taken() -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["w.bias"]),
        helper.make_node("Conv", ["w.bias", "w"], ["c"]),
        helper.make_node("BatchNormalization", ["c", *NORM_NAMES], ["y"]),
    ]
    same(model(nodes, [constant("w", 4, 3, 1, 1), *NORM], "y", ["N", 4, 8, 8]), {"Relu": 1, "Conv": 1})


def test_a_model_with_graphs_inside_is_left() -> None:
    inner = [
        helper.make_graph(
            [helper.make_node(kind, ["i"], ["o"])],
            kind,
            [],
            [helper.make_tensor_value_info("o", TensorProto.FLOAT, None)],
        )
        for kind in ("Relu", "Neg")
    ]
    nodes = [
        helper.make_node("Identity", ["x"], ["i"]),
        helper.make_node("If", ["yes"], ["y"], then_branch=inner[0], else_branch=inner[1]),
    ]
    yes = numpy_helper.from_array(np.array(True), "yes")
    same(model(nodes, [yes], "y", ["N", 3, 8, 8]), {"Identity": 1, "If": 1})
