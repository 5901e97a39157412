"""Inside an ncnn network: each layer run alone, on what the layers before it gave or on what it is given."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.errors import RuntimeFailed
from ..predictor.interface import InnerTensor
from .ncnn_model import Layer, read_layers


def run_layer(net: Any, mat: Any, layer: Layer, blobs: Mapping[str, NDArray[Any]], count: int) -> list[NDArray[Any]]:
    """A layer's outputs, `(N, ...)` each, from the blobs that it takes."""
    made: list[list[NDArray[Any]]] = [[] for _ in layer.outputs]
    for index in range(count):
        with net.create_extractor() as extractor:
            for name in layer.inputs:
                extractor.input(
                    name, mat(np.ascontiguousarray(blobs[name][index])).clone()
                )  # layers that work in place need their own
            for name, values in zip(layer.outputs, made, strict=True):
                failed, output = extractor.extract(name)
                if failed:
                    raise RuntimeFailed(f"ncnn: layer {layer.name} failed ({failed})")
                values.append(np.array(output))
    return [np.stack(values) for values in made]


def inner_tensors(
    net: Any, mat: Any, path: Path, batch: NDArray[Any], given: Mapping[str, NDArray[Any]]
) -> list[InnerTensor]:
    """Every blob that the input reaches, with its values."""
    fed: dict[str, NDArray[Any]] = {}
    constants: dict[str, str] = {}
    found: list[InnerTensor] = []
    for layer in read_layers(path):
        if layer.kind == "Input":
            fed[layer.outputs[0]] = batch
            continue
        values = run_layer(net, mat, layer, fed, len(batch))
        inputs = tuple(name for name in layer.inputs if name not in constants)
        if not inputs:
            constants.update(dict.fromkeys(layer.outputs, layer.name))
        of_it = tuple((str(place), constants[name]) for place, name in enumerate(layer.inputs) if name in constants)
        for name, value in zip(layer.outputs, values, strict=True):
            if inputs:
                found.append(InnerTensor(name, layer.kind, value, layer.name, inputs, of_it))
            fed[name] = given.get(name, value)
    return found
