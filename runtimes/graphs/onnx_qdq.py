"""An int8 ONNX model in QDQ form: the constants of its QuantizeLinear and DequantizeLinear, read back. Needs onnx."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .onnx_inner import attributes

HEAVY = ("Conv", "Gemm", "MatMul")  # operators that multiply by weights
ENDS: dict[Any, tuple[int, int]] = {np.uint8: (0, 255), np.int8: (-128, 127), np.int32: (-(1 << 31), (1 << 31) - 1)}


@dataclass(frozen=True)
class Scale:
    """scale, zero: float64, of one value or of one for each index of `axis`. kind: numpy's type of the integers."""

    scale: NDArray[np.float64]
    zero: NDArray[np.float64]
    axis: int
    kind: Any

    @property
    def ends(self) -> tuple[float, float]:
        """The least and the largest value that one scale for all can hold."""
        least, most = ENDS[self.kind]
        step, zero = float(self.scale.flat[0]), float(self.zero.flat[0])
        return (least - zero) * step, (most - zero) * step

    def along(self, array: NDArray[Any], dimensions: int) -> NDArray[Any]:
        """Scale or zero point in a shape that broadcasts."""
        return array if array.size == 1 else array.reshape([-1 if i == self.axis else 1 for i in range(dimensions)])


@dataclass(frozen=True)
class Held:
    """A constant in integers. name: of its initialiser. values: what it stands for, float64; step: in their shape."""

    name: str
    values: NDArray[np.float64]
    step: NDArray[np.float64]


class QdqGraph:
    """A model's constants and operators by the tensors that they make."""

    def __init__(self, model: Any) -> None:
        from onnx import numpy_helper

        self.model = model
        self.constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
        self.made = {name: node for node in model.graph.node for name in node.output}

    def scale(self, node: Any) -> Scale | None:
        """Of a QuantizeLinear or DequantizeLinear; None where it is no constant, or of a type not known here."""
        names = list(node.input[1:])
        if not all(name in self.constants for name in names if name):
            return None
        given = self.constants[names[1]] if len(names) > 1 and names[1] else np.zeros(1, np.uint8)
        if given.dtype.type not in ENDS:
            return None
        axis = attributes(node).get("axis", 1)
        scale = np.atleast_1d(self.constants[names[0]].astype(np.float64))
        return Scale(scale, np.atleast_1d(given.astype(np.float64)), axis, given.dtype.type)

    def held(self, tensor: str) -> Held | None:
        """The integers behind a dequantised constant; None for any other tensor."""
        maker = self.made.get(tensor)
        if maker is None or maker.op_type != "DequantizeLinear" or maker.input[0] not in self.constants:
            return None
        integers, scale = self.constants[maker.input[0]], self.scale(maker)
        if scale is None:
            return None
        step, zero = (scale.along(one, integers.ndim) for one in (scale.scale, scale.zero))
        return Held(maker.input[0], (integers - zero) * step, np.broadcast_to(step, integers.shape))

    def rounded_by(self, tensor: str) -> Scale | None:
        """The scale by which an activation is rounded before an operator is fed it; None where it is not."""
        out = self.made.get(tensor)
        into = None if out is None else self.made.get(out.input[0])
        return self.scale(into) if into is not None and into.op_type == "QuantizeLinear" else None
