"""Quantisation-aware training: each layer computes with weights and inputs rounded as int8 has them.

Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference" (2018),
section 3. Gradients pass the rounding as if it were not there. Parameters stay as they are, under the same names: what
is saved is a float network, which `edgerecall quantize` makes int8.
"""

from __future__ import annotations

from types import MethodType
from typing import Any

import paddle
from paddle import nn
from paddle.nn import functional as F

WEIGHT = 63  # of 7 bits, as recipes have them: the highest
INPUT = 255  # steps of an unsigned byte


def quantise_aware(network: nn.Layer) -> int:
    """Makes the convolutions and linear layers round; how many. A batch norm after a convolution may be folded into it
    later: each output channel has a scale of its own, which the norm only multiplies.
    """
    found = 0
    for layer in network.sublayers():
        if isinstance(layer, nn.Conv2D):
            layer.forward = MethodType(rounded_convolution, layer)
        elif isinstance(layer, nn.Linear):
            layer.forward = MethodType(rounded_product, layer)
        else:
            continue
        found += 1
    return found


def rounded_convolution(layer: Any, x: paddle.Tensor) -> paddle.Tensor:
    """What a convolution gives in int8."""
    weight = rounded_weight(layer.weight, axes=[1, 2, 3])
    given = (layer.bias, layer._stride, layer._padding, layer._dilation, layer._groups)
    return F.conv2d(rounded_input(x), weight, *given)


def rounded_product(layer: Any, x: paddle.Tensor) -> paddle.Tensor:
    """What a linear layer gives in int8; its weights are `(inputs, outputs)`."""
    return F.linear(rounded_input(x), rounded_weight(layer.weight, axes=[0]), layer.bias)


def rounded_weight(weight: paddle.Tensor, axes: list[int]) -> paddle.Tensor:
    """Symmetric, a scale for each output. axes: all others."""
    plain = weight.detach()
    scale = paddle.clip(plain.abs().max(axis=axes, keepdim=True) / WEIGHT, min=1e-12)
    return passing(weight, paddle.round(plain / scale) * scale)


def rounded_input(x: paddle.Tensor) -> paddle.Tensor:
    """Over the range that the batch has, zero in it to the bit."""
    plain = x.detach()
    low, high = paddle.clip(plain.min(), max=0.0), paddle.clip(plain.max(), min=0.0)
    scale = paddle.clip((high - low) / INPUT, min=1e-12)
    zero = paddle.round(-low / scale)
    return passing(x, (paddle.clip(paddle.round(plain / scale) + zero, 0, INPUT) - zero) * scale)


def passing(x: paddle.Tensor, rounded: paddle.Tensor) -> paddle.Tensor:
    """The rounded values, with the gradient of the others."""
    return x + (rounded - x).detach()
