"""What is wrong with an int8 ONNX model, beyond rounding: weights that it does not hold, ranges that values leave."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...runtimes.graphs.onnx_inner import attributes
from ...runtimes.graphs.onnx_qdq import QdqGraph, Scale
from .quantised_layers import QuantisedLayers, Tensors, session

STEPS = 1.05  # of a weight's scale, that its value may be off; rounding takes half of one
CUT_OFF = 0.01  # share of an activation's values beyond its range; calibration by percentile leaves a hundredth of it
UNUSED = 64  # times as wide as its values need: six of eight bits are lost; outliers make ranges some times too wide


@dataclass(frozen=True)
class Int8Fault:
    """layer: the operator. what: "fault" for constants, "unfit range" for activations. text: with its figures."""

    layer: str
    what: str
    text: str


class Int8Faults:
    """The constants around a QDQ model's layers, read back."""

    def __init__(self, layers: QuantisedLayers) -> None:
        from onnx import numpy_helper

        self.layers, self.graph = layers, QdqGraph(layers.quantised)
        self.floats = {name: numpy_helper.to_array(tensor) for name, tensor in layers.weights.items()}

    def find(self, tensors: Tensors) -> list[Int8Fault]:
        """In the graph's order. tensors: float32 `(n, 3, H, W)`, what activations are seen on."""
        found = [fault for name in self.layers.layers for fault in self._weights(name)]
        order = list(self.layers.layers)
        return sorted([*found, *self._activations(tensors)], key=lambda fault: order.index(fault.layer))

    def _weights(self, name: str) -> Iterator[Int8Fault]:
        twin, node = self.layers.layers[name]
        for what, plain, rounded in zip(("input", "weight", "bias"), twin.input, node.input, strict=False):
            held = self.graph.held(rounded) if plain in self.floats else None
            if held is None or held.values.shape != self.floats[plain].shape:
                continue
            wanted = self.floats[plain].astype(np.float64)
            allowed = STEPS * np.abs(held.step) + (self._corrected(twin, node) if what == "bias" else 0.0)
            off = np.abs(held.values - wanted) / np.maximum(allowed, 1e-300)
            if float(off.max()) > 1:
                index = np.unravel_index(int(off.argmax()), off.shape)
                count = int((off > 1).sum())
                at = ", ".join(map(str, index))
                more = f" (and {count - 1} more of {off.size})" if count > 1 else ""
                yield Int8Fault(
                    name,
                    "fault",
                    f"its {what}[{at}] is {held.values[index]:.4g} in int8 and {wanted[index]:.4g} in float{more}",
                )

    def _corrected(self, twin: Any, node: Any) -> NDArray[np.float64]:
        """By how much correction may have moved a layer's biases, `(out,)`: by no more than what its weights lost times
        the largest input.
        """
        weights, fed = self.graph.held(node.input[1]), self.graph.rounded_by(node.input[0])
        plain = self.floats.get(twin.input[1])
        if weights is None or fed is None or plain is None or plain.shape != weights.values.shape:
            return np.zeros(1)
        lost = np.abs(plain - weights.values)
        if node.op_type != "Conv" and not attributes(node).get("transB", 0):
            lost = lost.T
        return np.asarray(lost.reshape(len(lost), -1).sum(axis=1) * max(map(abs, fed.ends)))

    def _activations(self, tensors: Tensors) -> Iterator[Int8Fault]:
        """Ranges of what the layers are fed, against the float model's values."""
        fed: dict[str, tuple[str, Scale]] = {}
        for name, (twin, node) in self.layers.layers.items():
            for plain, rounded in zip(twin.input, node.input, strict=False):
                scale = None if plain in self.floats else self.graph.rounded_by(rounded)
                if scale is not None:
                    fed.setdefault(plain, (name, scale))
        given = self.layers.plain.graph.input[0].name
        names = [name for name in fed if name != given]
        runner = session(self.layers.plain, names)
        beyond, largest, count = dict.fromkeys(fed, 0), dict.fromkeys(fed, 0.0), dict.fromkeys(fed, 0)
        ends = {name: scale.ends for name, (_, scale) in fed.items()}
        for one in tensors:
            values = dict(zip(names, runner.run(names, {given: one[None]}), strict=True))
            for name in fed:
                array = values.get(name, one)
                low, high = ends[name]
                step = (high - low) / 255  # by which rounding may pass an end
                beyond[name] += int(((array < low - step) | (array > high + step)).sum())
                largest[name] = max(largest[name], float(np.abs(array).max()))
                count[name] += array.size
        for name, (layer, _) in fed.items():
            low, high = ends[name]
            share = beyond[name] / count[name]
            reach = f"the range of what it is fed, '{name}', is {low:.4g} to {high:.4g} in int8"
            if share > CUT_OFF:
                text = f"{reach}, and {share:.1%} of its values lie beyond, up to {largest[name]:.4g}"
                yield Int8Fault(layer, "unfit range", text)
            elif max(-low, high) > UNUSED * largest[name] > 0:
                text = f"{reach}, and its values reach no further than {largest[name]:.4g}"
                yield Int8Fault(layer, "unfit range", text)
