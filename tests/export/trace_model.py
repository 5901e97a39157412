"""Writes a Paddle inference model as a user would have it: `trace_model.py (mobilenet_v2 | flatten) PREFIX`."""

from __future__ import annotations

import sys

import paddle
from paddle import nn
from paddle.vision.models import mobilenet_v2

GAIN = 2.0


class Flattened(nn.Layer):
    """Convolutions, a flatten of a map larger than one pixel, and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2D(3, 8, 3, 2), nn.ReLU(), nn.Conv2D(8, 4, 3, 4))
        self.head = nn.Linear(4 * 8 * 8, 16)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        return self.head(paddle.flatten(self.body(x), 1))


def relu6_network() -> nn.Layer:
    """MobileNetV2 whose batch norms know its activations and scale them up to where relu6 cuts."""
    network = mobilenet_v2(num_classes=16)
    for layer in network.sublayers():
        if isinstance(layer, nn.BatchNorm2D):
            layer._momentum = 0.0
            layer.weight.set_value(paddle.full_like(layer.weight, GAIN))
            layer.bias.set_value(paddle.full_like(layer.bias, GAIN))
    network(paddle.randn([32, 3, 64, 64]))
    return network


def main() -> None:
    """Builds, seeds, traces."""
    paddle.seed(0)
    network = relu6_network() if sys.argv[1] == "mobilenet_v2" else Flattened()
    network.eval()
    spec = paddle.static.InputSpec([None, 3, 64, 64], "float32", name="x")
    paddle.jit.save(network, sys.argv[2], input_spec=[spec])


main()
