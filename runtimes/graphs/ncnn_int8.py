"""The int8 layers of an ncnn model: what they hold, and where their outputs stay int8 for the next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ..core.errors import RuntimeFailed
from .ncnn_model import INT8_TERM, REQUANTISED, Layer, NcnnModel, Weights

HIGHEST = 127  # of int8, to both sides


def scale_count(layer: Layer) -> int:
    """How many scales its weights have: one for each group or, undivided, for each output."""
    return layer.number(7, 1) if layer.kind == "ConvolutionDepthWise" else layer.number(0)


@dataclass(frozen=True)
class Int8Layer:
    """integers: int8 `(scales, n)`; scales: float32, by which the weights were multiplied; bias: float32 `(outputs,)`,
    None for none; fed: by which its input is multiplied.
    """

    integers: NDArray[np.int8]
    scales: NDArray[np.float32]
    bias: NDArray[np.float32] | None
    fed: float

    @classmethod
    def read(cls, layer: Layer, weights: Sequence[Weights]) -> Int8Layer:
        """Of a layer that `is_int8`. RuntimeFailed where its weights are not so many outputs'."""
        values, *biases, scales, fed = [one.values for one in weights[: inner_scales(weights, layer)]]
        rows = scale_count(layer)
        if rows < 1 or len(values) % rows:
            raise RuntimeFailed(f"ncnn: layer {layer.name}: {len(values)} weights are not of {rows} outputs")
        spread = np.broadcast_to(scales, (rows,))  # ncnn takes one for all too
        return cls(values.reshape(rows, -1), spread, biases[0] if biases else None, float(fed[0]))

    @property
    def values(self) -> NDArray[np.float64]:
        """The weights that the integers stand for, `(scales, n)`."""
        inverse = np.divide(1.0, self.scales, out=np.zeros(len(self.scales)), where=self.scales != 0)
        return np.asarray(self.integers * inverse[:, None], np.float64)

    @property
    def end(self) -> float:
        """Where the range of its input ends."""
        return HIGHEST / self.fed if self.fed else 0.0


def inner_scales(weights: Sequence[Weights], layer: Layer) -> int:
    """How many of a layer's weights there are without the scale of its output."""
    return len(weights) - (layer.number(INT8_TERM) > REQUANTISED)


def joins(layer: Layer) -> bool:
    """Whether it takes int8, and may give it."""
    return layer.is_int8 and layer.kind != "InnerProduct"


def join_int8(model: NcnnModel) -> None:
    """Convolutions whose output goes to one int8 convolution alone write it as int8 themselves."""
    users: dict[str, list[int]] = {}
    for place, layer in enumerate(model.layers):
        for name in layer.inputs:
            users.setdefault(name, []).append(place)
    for place, layer in enumerate(model.layers):
        after = users.get(layer.outputs[0], []) if joins(layer) else []
        if len(after) != 1 or not joins(model.layers[after[0]]) or layer.number(INT8_TERM) > REQUANTISED:
            continue
        following, held = model.layers[after[0]], model.weights[after[0]]
        model.layers[place] = with_term(layer, layer.number(INT8_TERM) + REQUANTISED)
        model.weights[place] = [*model.weights[place], held[inner_scales(held, following) - 1]]


def part_int8(model: NcnnModel) -> None:
    """All write float32: what `join_int8` did is undone."""
    for place, layer in enumerate(model.layers):
        if layer.is_int8 and layer.number(INT8_TERM) > REQUANTISED:
            model.weights[place] = model.weights[place][:-1]
            model.layers[place] = with_term(layer, layer.number(INT8_TERM) - REQUANTISED)


def with_term(layer: Layer, term: int) -> Layer:
    """The layer with another param for int8."""
    return replace(layer, params={**layer.params, str(INT8_TERM): str(term)})
