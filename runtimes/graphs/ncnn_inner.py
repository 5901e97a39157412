"""Inside an ncnn network: each layer run alone, on what the layers before it gave or on what it is given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.errors import RuntimeFailed
from ..predictor.interface import InnerTensor

HEADER_LINES = 2  # the magic number; how many layers and blobs


@dataclass(frozen=True)
class Layer:
    """A line of the `.param` file."""

    kind: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def read_layers(path: Path) -> list[Layer]:
    """The layers in order. RuntimeFailed when it is not ncnn's text."""
    found = []
    try:
        for line in path.read_text(encoding="utf-8").splitlines()[HEADER_LINES:]:
            if words := line.split():
                count, made = int(words[2]), int(words[3])
                blobs = words[4 : 4 + count + made]
                found.append(Layer(words[0], words[1], tuple(blobs[:count]), tuple(blobs[count:])))
    except (OSError, ValueError, IndexError) as error:
        raise RuntimeFailed(f"{path}: expected ncnn's layers, a line each: {error}") from error
    return found


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
