"""An ONNX model in int8 by ONNX Runtime's static quantiser: QDQ, over the folded graph."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from ...runtimes.core.files import write_text
from ...runtimes.graphs.onnx_fold import folded
from ...runtimes.graphs.onnx_inner import attributes, described, showing
from ...runtimes.graphs.onnx_qdq import HEAVY
from .bias_correction import MEANS_OF, correct_biases, corrected_inputs
from .ranges import Ranges
from .recipes import Int8Recipe, Layer, kept_layers

PASSING = ("Slice", "Reshape", "Flatten", "Squeeze", "Identity")  # take numbers as they are


def layers(model: Any) -> list[Layer]:
    """The model's operators."""
    shapes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    found = []
    for node in model.graph.node:
        groups = attributes(node).get("group", 1) if node.op_type == "Conv" else 1
        depthwise = 1 < groups == shapes.get(node.input[1], (0,))[0] if groups > 1 else False
        found.append(Layer(node.name, node.op_type, node.op_type in HEAVY, depthwise))
    return found


def quantize_onnx(
    source: Path, tensors: NDArray[np.float32], recipe: Int8Recipe, target: Path, known: Path | None = None
) -> list[str]:
    """Writes the quantised model; what was left in float. tensors: float32 `(n, 3, H, W)`. known: a file that keeps the
    ranges, for other recipes of the same model, images and calibration. InputError where the recipe does not fit.
    """
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

    model = folded(onnx.load(str(source)))
    kept = kept_layers(layers(model), recipe.keep)
    plain = onnx.ModelProto()
    plain.CopyFrom(model)
    if known is not None and known.is_file():
        ranges = json.loads(known.read_text(encoding="utf-8"))
    else:
        ranges = measured_ranges(model, tensors, recipe)
        if known is not None:
            write_text(known, json.dumps(ranges))
    symmetric = recipe.activations == "int8"
    quantizer = QDQQuantizer(
        model,
        recipe.per_channel,
        recipe.reduce_range,
        QuantType.QInt8,
        QuantType.QInt8 if symmetric else QuantType.QUInt8,
        as_tensors_data(ranges),
        [],
        kept,
        sorted({node.op_type for node in model.graph.node} & quantizable()),
        {"ActivationSymmetric": symmetric},
    )
    quantizer.quantize_model()
    quantizer.model.topological_sort()
    made = quantizer.model.model
    leave_output(made)
    if recipe.bias_correction:
        step = max(len(tensors) // MEANS_OF, 1)
        correct_biases(plain, made, channel_means(plain, corrected_inputs(plain), tensors[::step][:MEANS_OF]))
    onnx.checker.check_model(made, full_check=True)
    onnx.save(made, str(target))
    return kept


def leave_output(model: Any) -> None:
    """Takes the rounding away behind what makes the graph's output, and before what only passes it on: it gains no
    speed, and 8 bits over the widest range seen leave few to most embeddings.
    """
    graph = model.graph

    def rounded(name: str) -> str | None:
        """What a tensor is the rounding of, if it is one."""
        makers = {given: node for node in graph.node for given in node.output}
        last = makers.get(name)
        rounding = makers.get(last.input[0]) if last is not None and last.op_type == "DequantizeLinear" else None
        return rounding.input[0] if rounding is not None and rounding.op_type == "QuantizeLinear" else None

    for output in graph.output:
        inner = rounded(output.name)
        if inner is not None:
            for node in [one for one in graph.node if output.name in one.output]:
                graph.node.remove(node)
            for node in graph.node:
                for names in (node.input, node.output):
                    names[:] = [output.name if name == inner else name for name in names]
        makers = {name: node for node in graph.node for name in node.output}
        node = makers.get(output.name)
        while node is not None and node.op_type in PASSING:
            node.input[0] = rounded(node.input[0]) or node.input[0]
            node = makers.get(node.input[0])
    leave_unused(model)


def leave_unused(model: Any) -> None:
    """Takes roundings that nothing reads out of the graph, and their scales."""
    wanted = {one.name for one in model.graph.output}
    roundings = ("QuantizeLinear", "DequantizeLinear")
    while True:
        used = wanted | {name for node in model.graph.node for name in node.input}
        idle = [one for one in model.graph.node if one.op_type in roundings and one.output[0] not in used]
        if not idle:
            break
        for node in idle:
            model.graph.node.remove(node)
            left = {name for one in model.graph.node for name in one.input}
            for tensor in [one for one in model.graph.initializer if one.name in node.input and one.name not in left]:
                model.graph.initializer.remove(tensor)


def shown_by(model: Any, names: Sequence[str]) -> Callable[[NDArray[np.float32]], dict[str, NDArray[Any]]]:
    """What runs the model for one image, float32 `(3, H, W)`, and gives these tensors."""
    import onnxruntime

    (given,) = (one.name for one in model.graph.input)
    inner = [name for name in names if name != given]
    shown = showing(model, inner).SerializeToString()
    runner = onnxruntime.InferenceSession(shown, providers=["CPUExecutionProvider"])

    def run(tensor: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
        found = runner.run(inner, {given: tensor[None]}) if inner else []  # asked for none, it gives all
        values = dict(zip(inner, found, strict=True))
        return {name: values.get(name, tensor[None]) for name in names}

    return run


def channel_means(model: Any, names: Sequence[str], tensors: NDArray[np.float32]) -> dict[str, NDArray[np.float64]]:
    """The mean of each channel of these tensors, `(channels,)`, over the images."""
    run, sums = shown_by(model, names), dict[str, Any](dict.fromkeys(names, 0.0))
    for tensor in tensors:
        for name, array in run(tensor).items():
            sums[name] = sums[name] + array.mean(axis=(0, *range(2, array.ndim)), dtype=np.float64)
    return {name: total / len(tensors) for name, total in sums.items()}


def measured_ranges(model: Any, tensors: NDArray[np.float32], recipe: Int8Recipe) -> dict[str, tuple[float, float]]:
    """Of every activation: the ends of its range, float32."""
    names = [model.graph.input[0].name, *(tensor.name for tensor in described(model.graph))]
    run = shown_by(model, names)
    names = [name for name, values in run(tensors[0]).items() if values.dtype == np.float32]
    run, ranges = shown_by(model, names), Ranges(names)
    for tensor in tensors:
        ranges.see_ends(run(tensor))
    if recipe.calibration != "minmax":
        for tensor in tensors:
            ranges.see_sizes(run(tensor))
    found = {name: ranges.range(name, recipe.calibration, recipe.percentile) for name in names}
    if recipe.activations == "int8":
        return {name: (-max(-low, high), max(-low, high)) for name, (low, high) in found.items()}
    return found


def as_tensors_data(ranges: Mapping[str, Sequence[float]]) -> Any:
    """Ranges as ONNX Runtime's quantiser takes them."""
    from onnxruntime.quantization.calibrate import CalibrationMethod, TensorData, TensorsData

    data = {
        name: TensorData(lowest=np.array(low, np.float32), highest=np.array(high, np.float32))
        for name, (low, high) in ranges.items()
    }
    return TensorsData(CalibrationMethod.MinMax, data)


def quantizable() -> set[str]:
    """The operator types that ONNX Runtime puts into QDQ."""
    from onnxruntime.quantization.registry import QDQRegistry

    return set(QDQRegistry)
