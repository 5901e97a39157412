"""Inside an ONNX graph: every activation as an output, activations as inputs, and its parameters. Needs onnx."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.errors import RuntimeUnavailable
from ..core.versions import needs
from ..predictor.interface import InnerTensor, activations

OWN = "::own"  # what an operator itself makes of a tensor that its consumers are given


def load(path: str) -> Any:
    """The model. RuntimeUnavailable without the package."""
    try:
        import onnx
    except ImportError as error:
        raise RuntimeUnavailable(f"looking inside an ONNX graph {needs('onnx')}") from error
    return onnx.load(path)


def inner_graphs(node: Any) -> list[Any]:
    """The graphs that an operator holds (If, Loop, Scan); they may take any tensor from outside."""
    return [graph for one in node.attribute for graph in ((one.g,) if one.HasField("g") else one.graphs)]


def has_graphs(node: Any) -> bool:
    """Whether an operator holds graphs of its own."""
    return bool(inner_graphs(node))


def taken_inside(node: Any) -> set[str]:
    """The names that the graphs of an operator take, from outside or from themselves."""
    names = set()
    for graph in inner_graphs(node):
        names |= {one.name for one in graph.output}
        for inner in graph.node:
            names |= {name for name in inner.input if name} | taken_inside(inner)
    return names


def constant_sources(graph: Any) -> dict[str, list[str]]:
    """Every tensor that no input reaches, with the names of the parameters it is made from."""
    sources: dict[str, list[str]] = {tensor.name: [tensor.name] for tensor in graph.initializer}
    for node in graph.node:
        if not has_graphs(node) and all(not name or name in sources for name in node.input):
            made_from = [source for name in node.input if name for source in sources[name]]
            for name in node.output:
                sources[name] = made_from or [name]
    return sources


def parameters(path: str) -> dict[str, NDArray[Any]]:
    """Its float32 and float16 initialisers and constants by name."""
    graph = load(path).graph
    from onnx import numpy_helper

    tensors = [(tensor.name, tensor) for tensor in graph.initializer]
    for node in graph.node:
        if node.op_type == "Constant":
            tensors += [(node.output[0], attribute.t) for attribute in node.attribute if attribute.name == "value"]
    arrays = {name: numpy_helper.to_array(tensor) for name, tensor in tensors}
    return {name: array for name, array in arrays.items() if array.dtype in (np.float32, np.float16)}


def roles(node: Any) -> list[str]:
    """The names of an operator's inputs, as ONNX's specification has them."""
    from onnx import defs

    if not defs.has(node.op_type, node.domain):
        return []
    return [entry.name for entry in defs.get_schema(node.op_type, node.domain).inputs]


def described(graph: Any) -> list[InnerTensor]:
    """Every activation, without its values."""
    sources, found = constant_sources(graph), []
    for index, node in enumerate(graph.node):
        if all(name in sources for name in node.output if name):
            continue
        named = roles(node)
        constants = [
            (named[place] if place < len(named) else str(place), source)
            for place, name in enumerate(node.input)
            for source in sources.get(name, ())
        ]
        inputs = tuple(name for name in node.input if name and name not in sources)
        operator = node.name or f"node {index}"
        for output in node.output:
            if output:
                found.append(InnerTensor(output, node.op_type, np.empty(0), operator, inputs, tuple(constants)))
    return found


def attributes(node: Any) -> dict[str, Any]:
    """An operator's attributes by name."""
    from onnx import helper

    return {one.name: helper.get_attribute_value(one) for one in node.attribute}


def showing(model: Any, names: Iterable[str]) -> Any:
    """A copy of the model that gives these tensors too."""
    import onnx

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    there = {one.name for one in copy.graph.output}
    copy.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in there)
    return copy


def opened_up(model: Any, tensors: list[InnerTensor], given: Mapping[str, NDArray[Any]]) -> list[str]:
    """Changes the model so that it gives all of these tensors and takes the given ones; the outputs' names in order."""
    import onnx

    graph = model.graph
    for node in graph.node:
        node.output[:] = [name + OWN if name in given else name for name in node.output]
    for name, values in given.items():
        shape = [None, *values.shape[1:]]
        graph.input.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape))
    names = [tensor.name + OWN if tensor.name in given else tensor.name for tensor in tensors]
    del graph.output[:]
    graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    return names


def inner_tensors(
    path: str,
    open_session: Callable[[bytes], Any],
    feed: Mapping[str, NDArray[Any]],
    given: Mapping[str, NDArray[Any]],
) -> list[InnerTensor]:
    """Every activation with its values. open_session: of a serialised model. feed: the model's own input."""
    model = load(path)
    tensors = described(model.graph)
    names = opened_up(model, tensors, given)
    values = open_session(model.SerializeToString()).run(names, {**feed, **given})
    return activations(tensors, values)
