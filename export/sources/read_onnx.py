"""An ONNX file from outside: what cannot become a bundle is refused in one line that says what to do. Needs onnx."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import onnx
from onnx import external_data_helper, inliner

from ...runtimes.core.errors import InputError
from ...runtimes.core.text import one_line

OPSETS = range(11, 25)
STANDARD = ("", "ai.onnx")
LARGEST = (1 << 31) - 1  # bytes of a model with its weights: protobuf's own limit
RANDOM = ("Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike")


def read_onnx(path: Path) -> Any:
    """The model with its weights inside and no functions of its own. InputError when it is not a standard one."""
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
    if path.stat().st_size + load_weights(model, path) > LARGEST:
        raise too_large
    try:
        if model.functions:
            model = inliner.inline_local_functions(model)
        refuse_operators(model)
        onnx.checker.check_model(model, full_check=True)
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"not a valid ONNX model: {one_line(error)}") from error
    return model


def refuse_opset(model: Any) -> None:
    """InputError for an opset that is not known here."""
    found = [one.version for one in model.opset_import if one.domain in STANDARD]
    if not found or found[0] not in OPSETS:
        what = f"opset {found[0]}" if found else "no opset"
        raise InputError(f"expected opset {OPSETS[0]} to {OPSETS[-1]}, got {what}: export it again with opset 17")


def operators(graph: Any) -> Iterator[Any]:
    """All operators, those inside of others too."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from operators(inner)


def refuse_operators(model: Any) -> None:
    """InputError for operators of other domains, and for those that do not give the same twice."""
    for node in operators(model.graph):
        what = f"operator {node.op_type}{f' ({node.name!r:.60})' if node.name else ''}"
        if node.domain not in STANDARD:
            raise InputError(
                f"{what} is of domain '{node.domain}', not a standard one: export the model without it, before"
                " any optimiser"
            )
        if node.op_type in RANDOM:
            raise InputError(f"{what} draws random numbers: export the model without it")
        training = next((one.i for one in node.attribute if one.name == "training_mode"), 0)
        if training or (node.op_type == "BatchNormalization" and len(node.output) > 1 and node.output[1]):
            raise InputError(f"{what} is in training mode: call model.eval(), then export again")


def tensors(graph: Any) -> Iterator[Any]:
    """All stored tensors, those inside of operators too."""
    yield from graph.initializer
    for node in operators(graph):
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            if attribute.HasField("g"):
                yield from attribute.g.initializer


def load_weights(model: Any, path: Path) -> int:
    """Reads weights that lie in files beside the model; how many bytes. InputError for those that lie elsewhere."""
    folder, total = path.resolve().parent, 0
    for tensor in tensors(model.graph):
        if not external_data_helper.uses_external_data(tensor):
            continue
        fields = {entry.key: entry.value for entry in tensor.external_data}
        location = fields.get("location", "")
        outside = InputError(
            f"the weight '{tensor.name:.60}' lies in '{location:.100}': expected a file in the model's folder"
        )
        anchored = PurePosixPath(location).is_absolute() or PureWindowsPath(location).is_absolute()
        if not location or anchored or ".." in PureWindowsPath(location).parts:
            raise outside
        file = folder / location
        if not file.resolve().is_relative_to(folder):
            raise outside
        if not file.is_file():
            raise InputError(f"its weights lie in '{location:.100}', which is not there: copy it with the model")
        try:
            begin, length = int(fields.get("offset", 0)), int(fields.get("length", 0))
        except ValueError:
            begin, length = -1, 0
        size = file.stat().st_size
        if begin < 0 or length < 0 or begin + length > size:
            raise InputError(f"'{location:.100}' ends before the weight '{tensor.name:.60}': copy it again")
        total += length or size - begin
    if total:
        if total > LARGEST:
            return total
        external_data_helper.load_external_data_for_model(model, str(folder))
    return total
