"""Folding of an ONNX graph before it is quantised: what is constant, or linear behind a convolution, goes into weights.

A quantiser places its scales around operators; batch norms and biases left on their own would each get a rounding of
their own. HardSwish stays whole, which OpenVINO's int8 needs to be fast. The arithmetic is the same but for rounding.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import zip_longest
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from .onnx_inner import attributes, has_graphs, inner_graphs, taken_inside
from .onnx_opset import modernised

LARGEST = 1 << 20  # elements of a constant that is computed here, in and out, but for what only moves a weight's
MOVES = ("Cast", "Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze")
FILLS = ("ConstantOfShape", "Expand")  # the size of whose output is their last input
FOLDED = {
    *MOVES,
    *FILLS,
    "Add",
    "Ceil",
    "Clip",
    "Concat",
    "Div",
    "Equal",
    "Floor",
    "Gather",
    "Max",
    "Min",
    "Mul",
    "Neg",
}
FOLDED |= {"Pow", "ReduceProd", "Shape", "Slice", "Sqrt", "Sub", "Where"}
NUMBERS = {"value_float": np.float32, "value_floats": np.float32, "value_int": np.int64, "value_ints": np.int64}


class Graph:
    """A model's graph with its constants as arrays."""

    def __init__(self, model: Any) -> None:
        self.model, self.graph = model, model.graph
        self.constants: dict[str, NDArray[Any]] = {
            tensor.name: numpy_helper.to_array(tensor) for tensor in self.graph.initializer
        }
        self.nodes: list[Any] = list(self.graph.node)
        self.outputs = {output.name for output in self.graph.output}

    def uses(self) -> Counter[str]:
        """How often each tensor is taken, by operators and as the graph's output."""
        counts = Counter(name for node in self.nodes for name in (*node.input, *taken_inside(node)))
        counts.update(self.outputs)
        return counts

    def producers(self) -> dict[str, Any]:
        """The operator behind each tensor."""
        return {name: node for node in self.nodes for name in node.output}

    def rename(self, names: Mapping[str, str]) -> None:
        """Takes new names wherever old ones were taken, inside of operators too."""
        if names:
            renamed(self.nodes, names)

    def drop(self, gone: Any) -> None:
        """Leaves an operator out."""
        self.nodes = [node for node in self.nodes if node is not gone]

    def add_constant(self, name: str, array: NDArray[Any]) -> str:
        """A new constant; its name, made unlike all others."""
        name = self.unlike(name)
        self.constants[name] = array
        return name

    def unlike(self, name: str) -> str:
        """The name, made unlike those of all tensors that there are."""
        inside = (taken for node in self.nodes for taken in taken_inside(node))
        taken = {*self.constants, *self.producers(), *(given.name for given in self.graph.input), *inside}
        while name in taken:
            name += "_"
        return name

    def written(self) -> Any:
        """The model with what is left so far, unchecked."""
        used = self.uses()
        del self.graph.node[:], self.graph.initializer[:], self.graph.value_info[:]
        self.model.ir_version = max(self.model.ir_version, 4)  # before, constants had to be inputs too
        self.graph.node.extend(self.nodes)
        for name, array in self.constants.items():
            if used[name]:
                self.graph.initializer.append(numpy_helper.from_array(np.asarray(array, order="C"), name))
        kept = [given for given in self.graph.input if given.name not in self.constants]
        del self.graph.input[:]
        self.graph.input.extend(kept)
        return self.model

    def finished(self) -> Any:
        """The model with what is left. onnx.checker.ValidationError where it is none."""
        onnx.checker.check_model(self.written(), full_check=True)
        return self.model


def renamed(nodes: Iterable[Any], names: Mapping[str, str]) -> None:
    """Takes new names for old ones in operators and the graphs in them. A new one may be old itself."""
    for node in nodes:
        for place, name in enumerate(node.input):
            while name in names:
                name = names[name]
            node.input[place] = name
        for graph in inner_graphs(node):
            renamed(graph.node, names)
            for one in graph.output:
                while one.name in names:
                    one.name = names[one.name]


def is_training(graph: Graph, dropout: Any) -> bool:
    """Whether a dropout drops, or may."""
    mode = dropout.input[2] if len(dropout.input) > 2 else ""
    return bool(mode) and (mode not in graph.constants or bool(graph.constants[mode]))


def drop_identities(graph: Graph) -> None:
    """Identities and dropouts, which do nothing here; not a dropout whose mask is taken."""
    used, names, kept = graph.uses(), dict[str, str](), []
    for node in graph.nodes:
        idle = node.op_type == "Identity" or (node.op_type == "Dropout" and not is_training(graph, node))
        if not idle or node.output[0] in graph.outputs or any(used[name] for name in node.output[1:] if name):
            kept.append(node)
        else:
            names[node.output[0]] = node.input[0]
    graph.nodes = kept
    graph.rename(names)
    used, makers = graph.uses(), graph.producers()
    for node in [one for one in graph.nodes if one.op_type in ("Identity", "Dropout")]:
        maker = makers.get(node.input[0])
        needed = any(used[name] for name in node.output[1:] if name) or node.output[0] not in graph.outputs
        needed = needed or (node.op_type == "Dropout" and is_training(graph, node))
        if maker is None or needed or used[node.input[0]] != 1:
            continue
        maker.output[list(maker.output).index(node.input[0])] = node.output[0]  # it makes the graph's output itself
        graph.drop(node)


def fold_constants(graph: Graph) -> None:
    """What hangs on constants alone becomes one, where it is no larger than it was."""
    for node in list(graph.nodes):
        if node.op_type == "Constant" and node.output[0] not in graph.outputs:
            ((form, value),) = attributes(node).items()
            if form == "value":
                graph.constants[node.output[0]] = numpy_helper.to_array(value)
            elif form in NUMBERS:
                graph.constants[node.output[0]] = np.asarray(value, NUMBERS[form])
            else:  # texts, and sparse ones
                continue
            graph.drop(node)
            continue
        if node.op_type not in FOLDED or node.domain not in ("", "ai.onnx") or node.output[0] in graph.outputs:
            continue
        if not node.input or not all(name in graph.constants for name in node.input if name):
            continue
        feeds = {name: graph.constants[name] for name in node.input if name}
        size = sum(array.size for array in feeds.values())
        if size > LARGEST and node.op_type not in MOVES:
            continue
        if node.op_type not in MOVES and outcome(node, feeds) > LARGEST:
            continue
        found = evaluated(node, feeds, graph.model)
        if found.size <= max(LARGEST, size):
            graph.constants[node.output[0]] = found
            graph.drop(node)


def outcome(node: Any, feeds: Mapping[str, NDArray[Any]]) -> float:
    """At least how many elements an operator over constants gives, as far as it can be told without running it."""
    shapes = [array.shape for array in feeds.values()]
    if node.op_type in FILLS:
        target = tuple(int(side) for side in feeds[node.input[-1]])
        shapes = [target] if node.op_type == "ConstantOfShape" else [shapes[0], target]
    sides = [max(side) for side in zip_longest(*(shape[::-1] for shape in shapes), fillvalue=1)]
    return 0.0 if node.op_type == "Concat" else float(np.prod(sides, dtype=np.float64))


def evaluated(node: Any, feeds: dict[str, NDArray[Any]], model: Any) -> NDArray[Any]:
    """The output of one operator."""
    inputs = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
        for name, array in feeds.items()
    ]
    outputs = [helper.make_empty_tensor_value_info(name) for name in node.output]
    small = helper.make_model(helper.make_graph([node], "one", inputs, outputs), opset_imports=list(model.opset_import))
    return np.asarray(ReferenceEvaluator(small).run(None, feeds)[0])


def fold_batch_norms(graph: Graph) -> None:
    """Batch norms right behind a convolution go into its weights and bias."""
    makers, used = graph.producers(), graph.uses()
    for node in list(graph.nodes):
        conv = makers.get(node.input[0]) if node.op_type == "BatchNormalization" else None
        if conv is None or conv.op_type != "Conv" or used[conv.output[0]] != 1:
            continue
        if attributes(node).get("training_mode", 0) or any(used[name] for name in node.output[1:]):
            continue
        names = [conv.input[1], *conv.input[2:3], *node.input[1:5]]
        if not all(name in graph.constants for name in names):
            continue
        scale, shift, mean, variance = (graph.constants[name].astype(np.float64) for name in node.input[1:5])
        factor = scale / np.sqrt(variance + attributes(node).get("epsilon", 1e-5))
        weights = graph.constants[conv.input[1]].astype(np.float64)
        bias = graph.constants[conv.input[2]].astype(np.float64) if len(conv.input) > 2 else 0.0
        set_conv(graph, conv, weights * factor.reshape(-1, *[1] * (weights.ndim - 1)), shift + (bias - mean) * factor)
        conv.output[0] = node.output[0]
        graph.drop(node)
        makers = graph.producers()


def set_conv(graph: Graph, conv: Any, weights: NDArray[Any], bias: NDArray[Any]) -> None:
    """New weights and bias of a convolution, float32."""
    stem = conv.input[1]
    del conv.input[1:]
    conv.input.append(graph.add_constant(f"{stem}.folded", weights.astype(np.float32)))
    conv.input.append(graph.add_constant(f"{stem}.bias", np.asarray(bias, np.float32)))


def fold_biases(graph: Graph) -> None:
    """A constant added to a convolution, one number a channel, goes into its bias; one added to a product by a matrix
    makes both a Gemm.
    """
    makers, used = graph.producers(), graph.uses()
    for node in list(graph.nodes):
        if node.op_type != "Add":
            continue
        sides = [name for name in node.input if name not in graph.constants]
        if len(sides) != 1 or used[sides[0]] != 1:
            continue
        (constant,) = (graph.constants[name] for name in node.input if name in graph.constants)
        maker = makers.get(sides[0])
        if maker is None or len(maker.input) < 2 or maker.input[1] not in graph.constants:
            continue
        weights = graph.constants[maker.input[1]]
        if maker.op_type == "Conv" and constant.shape in bias_shapes(weights):
            if len(maker.input) > 2 and maker.input[2] not in graph.constants:
                continue
            before = graph.constants[maker.input[2]].astype(np.float64) if len(maker.input) > 2 else 0.0
            set_conv(graph, maker, weights, before + constant.reshape(-1).astype(np.float64))
        elif (
            maker.op_type == "MatMul"
            and is_matrix(graph, makers, maker.input[0])
            and constant.shape == weights.shape[1:]
        ):
            maker.op_type = "Gemm"
            maker.input.append(next(name for name in node.input if name in graph.constants))
        else:
            continue
        maker.output[0] = node.output[0]
        graph.drop(node)
        makers = graph.producers()


def bias_shapes(weights: NDArray[Any]) -> tuple[tuple[int, ...], ...]:
    """The shapes of a constant that adds one number to each of a convolution's channels."""
    own = (weights.shape[0], *[1] * (weights.ndim - 2))
    return (own, (1, *own))


def is_matrix(graph: Graph, makers: dict[str, Any], name: str) -> bool:
    """Whether a tensor is known to have the two dimensions that Gemm takes: what flattens or reshapes so made it."""
    maker = makers.get(name)
    while maker is not None and maker.op_type in ("Relu", "HardSwish", "Clip", "Identity", "Dropout"):
        maker = makers.get(maker.input[0])
    if maker is None:
        return False
    if maker.op_type == "Reshape":
        shape = graph.constants.get(maker.input[1])
        parts = makers.get(maker.input[1])
        if shape is not None:
            return bool(shape.size == 2)
        if parts is not None and parts.op_type == "Concat":  # the batch's size, sliced off, and a constant
            known = [graph.constants[one].size for one in parts.input if one in graph.constants]
            return len(parts.input) == 2 and known == [1]
        return False
    return maker.op_type in ("Flatten", "Gemm")


def named(model: Any) -> Any:
    """The model with a name of its own for every operator."""
    seen: set[str] = set()
    for node in model.graph.node:
        name = node.name or node.output[0]
        while name in seen:
            name += "_"
        node.name = name
        seen.add(name)
    return model


def folded(model: Any) -> Any:
    """A copy of an ONNX model, in opset 13 or newer where ONNX can convert it, folded, every operator with a name of
    its own. One with graphs inside its operators (If, Loop) is left as it is but for the names.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(modernised(model))
    if any(has_graphs(node) for node in copy.graph.node):
        return named(copy)
    graph = Graph(copy)
    fold_constants(graph)
    drop_identities(graph)
    fold_constants(graph)
    fold_batch_norms(graph)
    fold_biases(graph)
    return named(graph.finished())
