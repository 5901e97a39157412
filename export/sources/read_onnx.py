"""An ONNX file from outside: what cannot become a bundle is refused in one line that says what to do. Needs onnx."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import onnx
from onnx import TensorProto, inliner, numpy_helper, shape_inference

from ...runtimes.core.errors import InputError
from ...runtimes.core.text import one_line
from ...runtimes.graphs.onnx_inner import inner_graphs, taken_inside
from ...runtimes.graphs.onnx_opset import STANDARD, opset_of

OPSETS = range(9, 25)
LARGEST = (1 << 31) - 1  # bytes of a model with its weights: protobuf's own limit
MOST_OPERATORS = 100_000
RANDOM = ("Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike")


def read_onnx(path: Path) -> Any:
    """The model with its weights inside, its functions put in place, its operators in order. InputError when it is not
    a standard one in float32.
    """
    if not path.is_file():
        raise InputError("expected an ONNX model file")
    too_large = InputError("expected a model of up to 2 GB with its weights")
    if path.stat().st_size > LARGEST:
        raise too_large
    try:
        model = onnx.load_model(str(path), format="protobuf", load_external_data=False)
    except Exception as error:  # protobuf's DecodeError lives in a private module in some versions
        raise InputError(f"not an ONNX model: {one_line(error)}") from error
    if not model.graph.node:
        raise InputError("not an ONNX model, or one without operators")
    refuse_opset(model)
    refuse_size(model)
    if path.stat().st_size + outside_bytes(model, path) > LARGEST:
        raise too_large
    load_weights(model, path)
    try:
        if model.functions:
            model = inliner.inline_local_functions(model)
        refuse_operators(model)
        in_order(model.graph)
        free_sizes(model.graph)
        declare_outputs(model)
        onnx.checker.check_model(model, full_check=True)
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"not a valid ONNX model: {one_line(error)}") from error
    refuse_halves(model)
    return model


def refuse_opset(model: Any) -> None:
    """InputError for an opset that is not known here."""
    opset = opset_of(model)
    if opset not in OPSETS:
        what = "no opset" if opset is None else f"opset {opset}"
        raise InputError(f"expected opset {OPSETS[0]} to {OPSETS[-1]}, got {what}: export it again with opset 17")


def operators(nodes: Any) -> Iterator[Any]:
    """All operators, those inside of others too."""
    for node in nodes:
        yield node
        for graph in inner_graphs(node):
            yield from operators(graph.node)


def refuse_size(model: Any) -> None:
    """InputError for more operators, once functions are put in place, than any network has."""
    functions = {(one.domain, one.name): one for one in model.functions}
    known: dict[tuple[str, str], int] = {}
    refused = InputError(f"expected up to {MOST_OPERATORS:,} operators, and functions that do not call themselves")

    def count(nodes: Any, above: frozenset[tuple[str, str]]) -> int:
        total = 0
        for node in operators(nodes):
            name = (node.domain, node.op_type)
            if name in above:
                raise refused
            if name in functions and name not in known:
                known[name] = count(functions[name].node, above | {name})
            total += known.get(name, 1)
        return total

    if count(model.graph.node, frozenset()) > MOST_OPERATORS:
        raise refused


def refuse_operators(model: Any) -> None:
    """InputError for operators of other domains, and for those that do not give the same twice."""
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    stored |= {
        node.output[0]: one.t
        for node in model.graph.node
        if node.op_type == "Constant"
        for one in node.attribute
        if one.HasField("t")
    }
    for node in operators(model.graph.node):
        what = f"operator {node.op_type}{f' ({node.name!r:.60})' if node.name else ''}"
        if node.domain not in STANDARD:
            raise InputError(
                f"{what} is of domain '{node.domain:.60}', not a standard one: export the model without it, before any"
                " optimiser"
            )
        if node.op_type in RANDOM:
            raise InputError(f"{what} draws random numbers: export the model without it")
        training = next((one.i for one in node.attribute if one.name == "training_mode"), 0)
        if node.op_type == "BatchNormalization" and len(node.output) > 1 and node.output[1]:
            training = 1
        if node.op_type == "Dropout" and len(node.input) > 2 and node.input[2]:
            mode = stored.get(node.input[2])
            training = mode is None or bool(numpy_helper.to_array(mode))
        if training:
            raise InputError(f"{what} is in training mode: call model.eval(), then export again")


def refuse_halves(model: Any) -> None:
    """InputError for a model that computes in less than float32; its weights may be stored so."""
    inferred = shape_inference.infer_shapes(model)
    constants = {node.output[0] for node in model.graph.node if node.op_type == "Constant"}
    halves = (TensorProto.FLOAT16, TensorProto.BFLOAT16)
    for value in (*inferred.graph.value_info, *inferred.graph.output):
        if value.type.tensor_type.elem_type in halves and value.name not in constants:
            raise InputError(
                f"the tensor '{value.name:.60}' is computed in half precision: export the model in float32"
                " ('edgerecall quantize' makes smaller artifacts)"
            )


def free_sizes(graph: Any) -> None:
    """Leaves open what an input says of its sizes by 0 or -1."""
    for given in graph.input:
        for size in given.type.tensor_type.shape.dim:
            if size.HasField("dim_value") and size.dim_value <= 0:
                size.ClearField("dim_value")


def declare_outputs(model: Any) -> None:
    """Gives outputs that come without a shape the one that follows from the graph."""
    if all(one.type.tensor_type.HasField("shape") for one in model.graph.output):
        return
    inferred = {one.name: one for one in shape_inference.infer_shapes(model).graph.output}
    for one in model.graph.output:
        one.CopyFrom(inferred[one.name])


def in_order(graph: Any) -> None:
    """Puts operators behind those whose outputs they take; leaves a graph with a cycle as it is."""
    made = {name for node in graph.node for name in node.output if name}
    waiting = {index: ({*node.input} | taken_inside(node)) & made for index, node in enumerate(graph.node)}
    takers: dict[str, list[int]] = {}
    for index, names in waiting.items():
        for name in names:
            takers.setdefault(name, []).append(index)
    order, ready = [], deque(index for index, names in waiting.items() if not names)
    while ready:
        index = ready.popleft()
        order.append(index)
        for name in graph.node[index].output:
            for taker in takers.get(name, ()):
                waiting[taker].discard(name)
                if not waiting[taker]:
                    ready.append(taker)
    if len(order) == len(graph.node) and order != sorted(order):
        nodes = [graph.node[index] for index in order]
        del graph.node[:]
        graph.node.extend(nodes)


def tensors(model: Any) -> Iterator[Any]:
    """All stored tensors, those inside of operators, functions and sparse ones too."""

    def of_graph(graph: Any) -> Iterator[Any]:
        yield from graph.initializer
        for one in graph.sparse_initializer:
            yield from (one.values, one.indices)
        yield from of_nodes(graph.node)

    def of_nodes(nodes: Any) -> Iterator[Any]:
        for node in nodes:
            for attribute in node.attribute:
                if attribute.HasField("t"):
                    yield attribute.t
                yield from attribute.tensors
                sparse = (attribute.sparse_tensor,) if attribute.HasField("sparse_tensor") else ()
                for one in (*sparse, *attribute.sparse_tensors):
                    yield from (one.values, one.indices)
            for graph in inner_graphs(node):
                yield from of_graph(graph)

    yield from of_graph(model.graph)
    for function in model.functions:
        yield from of_nodes(function.node)


def is_outside(tensor: Any) -> bool:
    """Whether its values lie in a file of their own."""
    return bool(tensor.data_location == TensorProto.EXTERNAL)


def outside_bytes(model: Any, path: Path) -> int:
    """How many bytes of weights lie in other files."""
    return sum(place(tensor, path)[2] for tensor in tensors(model) if is_outside(tensor))


def place(tensor: Any, path: Path) -> tuple[Path, int, int]:
    """The file of a tensor's values, where they begin in it, and their bytes. InputError for a file elsewhere than the
    model's folder, and for one that ends too early.
    """
    fields = {entry.key: entry.value for entry in tensor.external_data}
    location = fields.get("location", "")
    file = path.parent / location
    anchored = PurePosixPath(location).is_absolute() or PureWindowsPath(location).is_absolute()
    # A link may lead to where the model itself is a link to, as in a hub's cache.
    allowed = (path.parent.resolve(), path.resolve().parent)
    if not location or anchored or ".." in PureWindowsPath(location).parts or not inside(file, *allowed):
        raise InputError(
            f"the weight '{tensor.name:.60}' lies in '{location:.100}': expected a file in the model's folder"
        )
    if not file.is_file():
        raise InputError(f"its weights lie in '{location:.100}', which is not there: copy it with the model")
    size = file.stat().st_size
    try:
        begin = int(fields.get("offset", 0))
        length = int(fields.get("length", size - begin))
    except ValueError:
        begin, length = -1, 0
    if begin < 0 or length < 0 or begin + length > size:
        raise InputError(f"'{location:.100}' ends before the weight '{tensor.name:.60}': copy it again")
    return file, begin, length


def inside(file: Path, *folders: Path) -> bool:
    """Whether a file, links followed, lies in one of the folders."""
    return any(file.resolve().is_relative_to(folder) for folder in folders)


def load_weights(model: Any, path: Path) -> None:
    """Brings weights in that lie in files beside the model."""
    for tensor in tensors(model):
        if is_outside(tensor):
            file, begin, length = place(tensor, path)
            with file.open("rb") as data:
                data.seek(begin)
                tensor.raw_data = data.read(length)
            tensor.ClearField("external_data")
            tensor.data_location = TensorProto.DEFAULT
