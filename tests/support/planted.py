"""Faults of one parameter in an artifact of a bundle, of an operator that is known."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgerecall.runtimes.bundle.bundle import Bundle
from edgerecall.runtimes.bundle.manifest import MANIFEST
from edgerecall.runtimes.core.files import sha256

KINDS = ("scale", "zero", "shift", "swap", "nan")


@dataclass(frozen=True)
class Parameter:
    """A parameter of an operator. axis: of its channels. put: writes other values."""

    operator: str
    role: str
    values: NDArray[np.float32]
    axis: int
    put: Callable[[NDArray[np.float32]], None]


def changed(values: NDArray[np.float32], axis: int, kind: str, size: float, rng: Any) -> NDArray[np.float32]:
    """One channel scaled by 1 + size, set to zero or NaN or shifted by size times the spread, or two swapped."""
    moved = np.moveaxis(values.copy(), axis, 0) if values.ndim else values.reshape(1).copy()
    first, second = (int(i) for i in (rng.permutation(len(moved))[[0, -1]]))
    if kind == "swap" and first != second:
        moved[[first, second]] = moved[[second, first]]
    elif kind in ("zero", "nan"):
        moved[first] = 0 if kind == "zero" else np.nan
    elif kind == "shift":
        moved[first] += np.float32(size * (float(values.std()) or abs(float(values.max())) or 1.0))
    else:
        moved[first] *= np.float32(1 + size)
    return np.array(np.moveaxis(moved, 0, axis) if values.ndim else moved.reshape(()), dtype=np.float32, order="C")


def onnx_parameters(model: Any) -> Iterator[Parameter]:
    """Of the operators that the input reaches."""
    from onnx import numpy_helper

    from edgerecall.runtimes.graphs.onnx_inner import described

    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant":
            tensors[node.output[0]] = node.attribute[0].t
    shared: dict[str, int] = {}
    shown = described(model.graph)
    for tensor in shown:
        for _, name in tensor.constants:
            shared[name] = shared.get(name, 0) + 1
    for tensor in shown:
        for role, name in tensor.constants:
            values = numpy_helper.to_array(tensors[name])
            if values.dtype != np.float32 or shared[name] > 1:
                continue

            def put(new: NDArray[np.float32], target: Any = tensors[name], name: str = name) -> None:
                target.CopyFrom(numpy_helper.from_array(new, name))

            axis = 1 if tensor.kind == "MatMul" else 0
            yield Parameter(tensor.operator, role, values, axis, put)


def openvino_parameters(model: Any) -> Iterator[Parameter]:
    """Of the layers that the input reaches."""
    from openvino import opset1

    from edgerecall.runtimes.graphs.openvino_inner import described

    tensors, outputs = described(model)
    for tensor, output in zip(tensors, outputs, strict=True):
        node = output.get_node()
        for place in range(node.get_input_size()):
            constant = node.input_value(place).get_node()
            if constant.get_type_name() != "Constant" or constant.get_element_type().get_type_name() != "f32":
                continue
            values = np.array(constant.data)
            axis = next((i for i, side in enumerate(values.shape) if side > 1), 0)
            if tensor.kind == "MatMul":
                axis = 0 if node.get_attributes().get("transpose_b") else 1

            def put(
                new: NDArray[np.float32], node: Any = node, place: int = place, name: str = constant.friendly_name
            ) -> None:
                made = opset1.constant(new, dtype=np.float32)
                made.set_friendly_name(name)
                node.input(place).replace_source_output(made.output(0))

            yield Parameter(tensor.operator, str(place), values, axis, put)


def ncnn_parameters(param: Path, data: bytearray) -> Iterator[Parameter]:
    """Of convolutions and inner products, whose weights and biases follow each other in the `.bin`."""
    place = 0

    def writer(start: int) -> Callable[[NDArray[np.float32]], None]:
        def put(new: NDArray[np.float32]) -> None:
            data[start : start + new.nbytes] = new.tobytes()

        return put

    for line in param.read_text().splitlines()[2:]:
        kind, name, *rest = line.split()
        options = dict(word.split("=", 1) for word in rest if "=" in word)
        if kind not in ("Convolution", "ConvolutionDepthWise", "InnerProduct"):
            assert kind not in ("BatchNorm", "Scale", "PReLU", "MemoryData"), kind
            continue
        outputs, dense = int(options["0"]), kind == "InnerProduct"
        size = int(options["2" if dense else "6"])
        assert data[place : place + 4] == bytes(4), f"{name}: not float32"
        place += 4
        weights = np.frombuffer(bytes(data[place : place + 4 * size]), np.float32).reshape(outputs, -1)
        yield Parameter(name, "weight", weights, 0, writer(place))
        place += 4 * size
        if options.get("1" if dense else "5") == "1":
            bias = np.frombuffer(bytes(data[place : place + 4 * outputs]), np.float32)
            yield Parameter(name, "bias", bias, 0, writer(place))
            place += 4 * outputs
    assert place == len(data)


def seal_again(folder: Path) -> Bundle:
    """Sizes and hashes of what lies there now."""
    manifest = json.loads((folder / MANIFEST).read_text())
    for artifact in manifest["artifacts"]:
        for file in artifact["files"]:
            path = folder / file["path"]
            file.update(bytes=path.stat().st_size, sha256=sha256(path))
    (folder / MANIFEST).write_text(json.dumps(manifest))
    return Bundle.open(folder)


@dataclass(frozen=True)
class Planted:
    """What was done to a bundle's artifact."""

    bundle: Bundle
    operator: str
    role: str
    kind: str
    size: float

    def __str__(self) -> str:
        return f"{self.operator} {self.role} {self.kind} {self.size:.2g}"


def plant(source: Path, folder: Path, runtime: str, seed: int) -> Planted:
    """A copy of a bundle with one parameter changed in the runtime's artifact, sealed anew."""
    rng = np.random.default_rng(seed)
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(source, folder)
    files = {file.role: folder / file.path for file in Bundle.open(folder).artifact(runtime).files}
    if runtime == "onnxruntime":
        import onnx

        model = onnx.load(files["model"])
        parameters = list(onnx_parameters(model))
        save = lambda: onnx.save(model, files["model"])  # noqa: E731
    elif runtime == "openvino":
        import openvino

        # From elsewhere: the weights are mapped from the file that is written.
        ir = openvino.Core().read_model(source / files["model"].relative_to(folder))
        parameters = list(openvino_parameters(ir))
        save = lambda: openvino.save_model(ir, files["model"], compress_to_fp16=False)  # noqa: E731
    else:
        data = bytearray(files["weights"].read_bytes())
        parameters = list(ncnn_parameters(files["model"], data))
        save = lambda: files["weights"].write_bytes(data)  # noqa: E731
    while True:  # a bound of 0 that is scaled is as it was
        chosen = parameters[rng.integers(len(parameters))]
        kind, size = str(rng.choice(KINDS)), float(10 ** rng.uniform(-3, 0))
        values = changed(chosen.values, chosen.axis, kind, size, rng)
        if not np.array_equal(values, chosen.values):
            break
    chosen.put(values)
    save()
    return Planted(seal_again(folder), chosen.operator, chosen.role, kind, size)
