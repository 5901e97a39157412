"""An ONNX model made plain, once, for every format that starts from it.

One float32 input `(batch, 3, H, W)` with a free batch, one output `(batch, D)`, opset 13 where it was older; what is
constant computed, what does nothing or is only for training left out. The arithmetic on activations stays as it is, and
the result is run beside the model as it came.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, shape_inference

from ...runtimes.core.errors import InputError, ParityError
from ...runtimes.core.text import one_line
from ...runtimes.graphs.onnx_fold import Graph, drop_identities, fold_constants
from ...runtimes.graphs.onnx_inner import has_graphs, taken_inside
from ...runtimes.graphs.onnx_opset import LEAST, READ, modernised, opset_of
from ...runtimes.predictor.precision import TOLERANCE
from .read_onnx import read_onnx

Shape = tuple[int, int, int]
TRIED = 3  # images in the batch that proves equality, and then one alone
MOST_BATCH = 1024  # of those that a model may hold fixed
ROUNDS = 20
FREE_BATCH = "export it with a free batch (torch.onnx.export: dynamic_shapes, or dynamic_axes of the older exporter)"


@dataclass(frozen=True)
class Ends:
    """Of a model as it came: its input, whether it is `(N, H, W, 3)`, its fixed batch (None: free), its output."""

    input_name: str
    channels_last: bool
    batch: int | None
    output_name: str


def dims(value: Any) -> list[int | None]:
    """A tensor's declared sizes, None where free."""
    return [one.dim_value if one.HasField("dim_value") else None for one in value.type.tensor_type.shape.dim]


def words(sizes: Sequence[int | None]) -> str:
    """Sizes as people read them."""
    return " x ".join("any" if size is None else str(size) for size in sizes)


def kind(value: Any) -> str:
    """A tensor's element type."""
    name = str(TensorProto.DataType.Name(value.type.tensor_type.elem_type)).lower()
    return "float32" if name == "float" else name


def find_ends(model: Any, shape: Shape, output: str | None) -> Ends:
    """The input and output that a bundle takes. shape: `(3, H, W)`, from the preprocessing. InputError tells what there
    is.
    """
    stored = {tensor.name for tensor in model.graph.initializer}
    inputs = [one for one in model.graph.input if one.name not in stored]
    if len(inputs) != 1:
        listed = ", ".join(f"'{one.name}' ({kind(one)} {words(dims(one))})" for one in inputs)
        raise InputError(f"expected one input, the image, got {len(inputs)}: {listed or 'none'}")
    (given,) = inputs
    if given.type.tensor_type.elem_type != TensorProto.FLOAT:
        raise InputError(
            f"input '{given.name}': expected float32, got {kind(given)}: export the model in float32 and without its"
            " preprocessing ('edgerecall quantize' makes smaller artifacts)"
        )
    declared = dims(given) if given.type.tensor_type.HasField("shape") else [None] * 4
    layouts = [(shape, False), ((*shape[1:], shape[0]), True)]
    fitting = [
        last
        for wanted, last in layouts
        if len(declared) == 4 and all(have in (None, want) for have, want in zip(declared[1:], wanted, strict=True))
    ]
    if not fitting:
        raise InputError(
            f"input '{given.name}': the model takes {words(declared)}, the preprocessing gives {words((None, *shape))}:"
            " change its resize or crop"
        )
    if declared[0] is not None and declared[0] > MOST_BATCH:
        raise InputError(
            f"input '{given.name}': expected a free batch, or one of up to {MOST_BATCH}, got {declared[0]}"
        )
    return Ends(given.name, fitting[0], declared[0], find_output(model.graph, output))


def find_output(graph: Any, output: str | None) -> str:
    """The tensor to take as the embedding: any that an operator makes, by default the only output."""
    outputs = [one.name for one in graph.output]
    if output is None:
        if len(outputs) == 1:
            return str(outputs[0])
        listed = ", ".join(f"'{one.name}' ({words(dims(one))})" for one in graph.output)
        raise InputError(f"expected one output, got {len(outputs)}: choose the embedding by --output NAME: {listed}")
    made = [name for node in graph.node for name in node.output if name]
    if output not in made:
        near = get_close_matches(output, made, 1)
        meant = f"; did you mean '{near[0]}'?" if near else f"; the model's outputs: {', '.join(outputs)}"
        raise InputError(f"--output: no operator makes '{output:.60}'{meant}")
    return output


def prune(graph: Graph, output: str) -> None:
    """Leaves out what the output does not need."""
    needed, kept = {output}, []
    for node in reversed(graph.nodes):
        if needed & set(node.output):
            kept.append(node)
            needed |= {name for name in node.input if name}
            needed |= taken_inside(node)
    graph.nodes = kept[::-1]


def take_planes(graph: Graph, ends: Ends) -> None:
    """The input as `(N, 3, H, W)`: a transposition goes in front of a model that takes `(N, H, W, 3)`; where the model
    begins by the opposite one, both are left out.
    """
    name = ends.input_name
    uses = [node for node in graph.nodes if name in node.input]
    back = [0, 3, 1, 2]
    if all(node.op_type == "Transpose" and list(node.attribute[0].ints) == back for node in uses if node.attribute):
        own = [node for node in uses if node.op_type == "Transpose" and node.attribute]
        if len(own) == len(uses) and all(node.output[0] not in graph.outputs for node in own):
            for node in own:
                graph.drop(node)
            graph.rename({node.output[0]: name for node in own})
            return
    moved = graph.unlike(f"{name}_channels_last")
    graph.rename({name: moved})
    graph.nodes.insert(0, helper.make_node("Transpose", [name], [moved], name=moved, perm=[0, 2, 3, 1]))


def known_shapes(model: Any) -> dict[str, list[int | None]]:
    """The sizes of every tensor, as far as they can be inferred."""
    inferred = shape_inference.infer_shapes(model, data_prop=True)
    values = (*inferred.graph.value_info, *inferred.graph.input, *inferred.graph.output)
    return {one.name: dims(one) for one in values if one.type.tensor_type.HasField("shape")}


def fold_shapes(graph: Graph, shapes: Mapping[str, list[int | None]]) -> bool:
    """Computes what is asked of a tensor's sizes, where they are known; whether there was any."""
    asked = {
        node.output[0]: shapes[node.input[0]]
        for node in graph.nodes
        if node.op_type == "Shape" and not node.attribute and node.input[0] in shapes
    }
    changed = False
    for node in list(graph.nodes):
        if node.output[0] in graph.outputs:
            continue
        sizes: Any = None
        if node.op_type == "Shape" and node.output[0] in asked:
            sizes = asked[node.output[0]]
        elif node.op_type == "Gather" and node.input[0] in asked and node.input[1] in graph.constants:
            place = graph.constants[node.input[1]]
            sizes = np.asarray(asked[node.input[0]], dtype=object)[place]
        elif node.op_type == "Slice" and node.input[0] in asked:
            bounds = [graph.constants[name] for name in node.input[1:] if name in graph.constants]
            if len(bounds) != len(node.input) - 1 or (len(bounds) > 3 and bounds[3] != [1]):
                continue
            sizes = asked[node.input[0]][int(bounds[0][0]) : int(bounds[1][0])]
        if sizes is None or any(size is None for size in np.ravel(np.asarray(sizes, dtype=object))):
            continue
        graph.constants[node.output[0]] = np.asarray(sizes, dtype=np.int64)
        graph.drop(node)
        changed = True
    return changed


def open_batch(graph: Graph, shapes: Mapping[str, list[int | None]], ends: Ends) -> None:
    """Lets reshapes that name a fixed batch take any, and repeats constants that are joined to each image."""
    for node in list(graph.nodes):
        if node.op_type == "Reshape" and node.input[1] in graph.constants and node.input[0] not in graph.constants:
            target = graph.constants[node.input[1]]
            if target.size == 0 or target[0] != ends.batch:
                continue
            free = 0 if -1 in target else -1
            if free == 0 and shapes.get(node.input[0], [None])[0] != ends.batch:
                continue
            changed = np.concatenate([[free], target[1:]]).astype(np.int64)
            node.input[1] = graph.add_constant(f"{node.input[1]}_any_batch", changed)
        elif node.op_type == "Concat" and ends.batch == 1 and node.attribute[0].i != 0:
            for place, name in enumerate(node.input):
                constant = graph.constants.get(name)
                if constant is not None and constant.ndim > 1 and len(constant) == 1:
                    node.input[place] = repeated(graph, node, name, ends.input_name)


def repeated(graph: Graph, before: Any, name: str, image: str) -> str:
    """A constant `(1, ...)` once for each image of the batch, for an operator; what it is called."""
    begin = graph.add_constant(f"{name}_begin", np.array([0], np.int64))
    end = graph.add_constant(f"{name}_end", np.array([1], np.int64))
    rest = graph.add_constant(f"{name}_rest", np.array(graph.constants[name].shape[1:], np.int64))
    shape, batch, sizes, each = (graph.unlike(f"{name}_{what}") for what in ("shape", "batch", "sizes", "each"))
    made = [
        helper.make_node("Shape", [image], [shape]),
        helper.make_node("Slice", [shape, begin, end], [batch]),
        helper.make_node("Concat", [batch, rest], [sizes], axis=0),
        helper.make_node("Expand", [name, sizes], [each]),
    ]
    place = next(index for index, node in enumerate(graph.nodes) if node is before)
    graph.nodes[place:place] = made
    return each


def batch_of(name: str, sizes: Sequence[int]) -> Any:
    """The declaration of a float32 tensor `(batch, *sizes)`."""
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *sizes])


def set_ends(model: Any, ends: Ends, shape: Shape, sizes: Sequence[int]) -> None:
    """The graph's one input and one output `(batch, *sizes)`, with a free batch."""
    del model.graph.output[:], model.graph.value_info[:]
    model.graph.output.append(batch_of(ends.output_name, sizes))
    for place, one in enumerate(model.graph.input):
        if one.name == ends.input_name:
            model.graph.input[place].CopyFrom(batch_of(ends.input_name, shape))


def normalised(model: Any, shape: Shape, ends: Ends, sizes: Sequence[int]) -> Any:
    """A copy in the plain form. sizes: of its output, behind the batch."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    before = known_shapes(copy) if ends.batch is not None else {}
    set_ends(copy, ends, shape, sizes)
    graph = Graph(copy)
    prune(graph, ends.output_name)
    if ends.channels_last:
        take_planes(graph, ends)
    for _ in range(0 if any(has_graphs(node) for node in graph.nodes) else ROUNDS):
        fold_constants(graph)
        drop_identities(graph)
        if ends.batch is not None:
            open_batch(graph, before, ends)
        prune(graph, ends.output_name)
        graph = Graph(graph.written())
        if not fold_shapes(graph, known_shapes(graph.model)):
            break
    if len(sizes) > 1:  # (N, D, 1, 1)
        flatten(graph, ends.output_name, sizes[0])
    return graph.finished()


def flatten(graph: Graph, output: str, count: int) -> None:
    """Gives `(N, D, 1, 1)` as `(N, D)`."""
    flat = graph.unlike(f"{output}_flat")
    graph.nodes.append(helper.make_node("Flatten", [output], [flat], name=flat, axis=1))
    graph.graph.output[0].CopyFrom(batch_of(flat, [count]))
    graph.outputs = {flat}


class Session:
    """A model in ONNX Runtime as it is, none of its graph optimised. InputError when it does not run."""

    def __init__(self, model: Any, ends: Ends) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.log_severity_level = 3
        self.ends = ends
        try:
            providers = ["CPUExecutionProvider"]
            self.session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=providers)
        except Exception as error:
            raise InputError(f"ONNX Runtime cannot load the model: {one_line(error)}") from error

    def run(self, batch: NDArray[np.float32]) -> NDArray[Any]:
        """Float32 `(N, 3, H, W)` to what the model gives."""
        given = np.ascontiguousarray(batch.transpose(0, 2, 3, 1)) if self.ends.channels_last else batch
        try:
            (found,) = self.session.run([self.ends.output_name], {self.ends.input_name: given})
        except Exception as error:
            raise InputError(f"ONNX Runtime cannot run the model: {one_line(error)}") from error
        return np.asarray(found)

    def embed(self, tensors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Image by image, `(N, ...)`, as a model with a fixed batch takes them too. InputError for other outputs."""
        rows, count = [], self.ends.batch or 1
        for tensor in tensors:
            found = self.run(np.repeat(tensor[None], count, axis=0))
            whole = found.ndim >= 2 and len(found) == count and found.dtype == np.float32
            if not whole or found[0].size != found.shape[1]:
                raise InputError(
                    f"output '{self.ends.output_name}': expected one float32 vector an image, got {found.dtype}"
                    f" {words(found.shape)}: choose another by --output NAME, or pool in the model"
                )
            rows.append(found[:1])
        return np.concatenate(rows)


def as_it_came(model: Any, ends: Ends) -> Session:
    """The model with the chosen output alone."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.output[:]
    copy.graph.output.append(onnx.ValueInfoProto(name=ends.output_name))
    return Session(copy, ends)


def proven(expected: NDArray[np.float32], plain: Any, tensors: NDArray[np.float32], ends: Ends) -> Any:
    """The plain form, once it gave for a batch what the model as it came gives image by image, `expected`. ParityError,
    InputError.
    """
    held = InputError(f"the model holds a fixed batch of {ends.batch}: {FREE_BATCH}")
    opened = Ends(ends.input_name, False, None, plain.graph.output[0].name)
    try:
        session = Session(plain, opened)
        found, alone = session.run(tensors), session.run(tensors[:1])
    except InputError as error:
        raise held if ends.batch is not None else error from error
    expected = expected.reshape(len(expected), -1)
    scale = max(float(np.abs(expected).max()), float(np.finfo(np.float32).tiny))
    if not np.isfinite(expected).all():
        raise InputError("the model gives NaN or infinity for an image of noise: is it trained, and exported soundly?")
    same = found.shape == expected.shape and alone.shape == expected[:1].shape
    if same and max(np.abs(found - expected).max(), np.abs(alone - expected[:1]).max()) <= TOLERANCE["fp32"] * scale:
        return plain
    if ends.batch is not None:
        raise held
    raise ParityError(
        f"a batch of {len(tensors)} differs from its images one by one, or the model as prepared from that which came"
    )


def prepare(path: Path, target: Path, shape: Shape, output: str | None) -> tuple[Ends, dict[str, object]]:
    """Writes the plain form of a model; its ends, and what was changed. InputError, ParityError: why it cannot be."""
    model = read_onnx(path)
    ends = find_ends(model, shape, output)
    tensors = np.random.default_rng(0).standard_normal((TRIED, *shape)).astype(np.float32)
    expected = as_it_came(model, ends).embed(tensors)
    try:
        plain = proven(expected, normalised(modernised(model), shape, ends, expected.shape[1:]), tensors, ends)
    except ParityError:
        if (opset_of(model) or 0) not in range(READ, LEAST):
            raise
        plain = proven(expected, normalised(model, shape, ends, expected.shape[1:]), tensors, ends)
    onnx.save_model(plain, str(target))
    (given,) = (one for one in model.graph.input if one.name == ends.input_name)
    changes: dict[str, object] = {"operators": [len(model.graph.node), len(plain.graph.node)]}
    if (opset := opset_of(model)) != opset_of(plain):
        changes["opset"] = f"was {opset}"
    if ends.channels_last:
        changes["input"] = "was (N, H, W, 3)"
    if ends.batch is not None:
        changes["batch"] = f"was {ends.batch}"
    if None in dims(given)[1:]:
        changes["size"] = f"was free, is {words(shape[1:])}"
    return ends, changes


def reference(path: Path, tensors: NDArray[np.float32], output: str | None) -> NDArray[np.float32]:
    """What the model as it came gives, `(N, D)`. tensors: float32 `(N, 3, H, W)`."""
    model = read_onnx(path)
    _, channels, height, width = tensors.shape
    ends = find_ends(model, (channels, height, width), output)
    return as_it_came(model, ends).embed(tensors).reshape(len(tensors), -1)
