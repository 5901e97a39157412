"""Small networks of three families with batch norm statistics like trained ones, saved as users save Paddle models.

`python small_networks.py FOLDER` writes each as `NAME/inference.json` or, with FLAGS_enable_pir_api=0, as
`NAME/inference.pdmodel`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

SIDE, DIM = 64, 32
NAMES = ("mobilenet_v3", "mobilenet_v2", "resnet")


def build(name: str) -> Any:
    """A network float32 `(N, 3, 64, 64)` -> `(N, 32)`, the same at every call."""
    import paddle
    from paddle import nn
    from paddle.vision import models

    paddle.seed(7)
    if name == "mobilenet_v3":
        network = models.MobileNetV3Small(scale=0.35, num_classes=DIM)
    elif name == "mobilenet_v2":
        network = models.MobileNetV2(scale=0.25, num_classes=DIM)
    else:
        from paddle.vision.models.resnet import BottleneckBlock, ResNet

        network = ResNet(BottleneckBlock, 50, width=16, num_classes=DIM)
    for layer in network.sublayers():
        if isinstance(layer, nn.Dropout):
            layer.p = 0.0
        elif isinstance(layer, nn.BatchNorm2D):
            layer._momentum = 0.5
            layer.weight.set_value(1 + 0.2 * paddle.randn(layer.weight.shape))
            layer.bias.set_value(0.2 * paddle.randn(layer.bias.shape))
        elif isinstance(layer, nn.Linear | nn.Conv2D) and layer.bias is not None:
            layer.bias.set_value(0.1 * paddle.randn(layer.bias.shape))
    with paddle.no_grad():
        network.train()
        for _ in range(8):  # statistics that fit the activations
            network(blocks(16))
        network.eval()
        last = [layer for layer in network.sublayers() if isinstance(layer, nn.Linear)][-1]
        made = network(blocks(32))
        # Images are told apart, but not so well that rounding is.
        spread = float(made.std(0).mean())
        last.bias.set_value(last.bias - made.mean(0) + 10 * spread * paddle.randn(last.bias.shape))
    return network


def blocks(count: int) -> Any:
    """Images of large random patches, whose features differ more than those of noise."""
    import paddle

    patches = paddle.randn([count, 3, 8, 8]) + paddle.randn([count, 3, 1, 1])
    return paddle.nn.functional.interpolate(patches, [SIDE, SIDE], mode="bilinear")


def save(name: str, folder: Path) -> None:
    """In the form that Paddle writes today."""
    import paddle

    specification = [paddle.static.InputSpec([None, 3, SIDE, SIDE], "float32", "x")]
    paddle.jit.save(paddle.jit.to_static(build(name), input_spec=specification), str(folder / "inference"))


if __name__ == "__main__":
    for family in NAMES:
        save(family, Path(sys.argv[1]) / family)
