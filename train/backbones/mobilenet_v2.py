"""MobileNetV2 (Sandler et al., arXiv 1801.04381) with the reference's parameter names."""

from __future__ import annotations

import paddle
from paddle import nn

# expansion, output width, repeats, stride: table 2 of the paper
STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
EXPAND = 1280


class ConvBN(nn.Layer):
    """Convolution without bias and batch norm, under the names that the reference has here alone; ReLU6 if wanted."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1, act: bool = True):
        super().__init__()
        padding = (kernel - 1) // 2
        self._conv = nn.Conv2D(inputs, outputs, kernel, stride, padding, groups=groups, bias_attr=False)
        self._batch_norm = nn.BatchNorm2D(outputs)
        self.act = nn.ReLU6() if act else None

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        x = self._batch_norm(self._conv(x))
        return self.act(x) if self.act is not None else x


class InvertedResidual(nn.Layer):
    """Expand, depthwise, project; the reference adds the shortcut by the block's place, not by its widths."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int, shortcut: bool) -> None:
        super().__init__()
        middle = inputs * expansion
        self._expand_conv = ConvBN(inputs, middle, 1)
        self._bottleneck_conv = ConvBN(middle, middle, 3, stride, groups=middle)
        self._linear_conv = ConvBN(middle, outputs, 1, act=False)
        self.shortcut = shortcut

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        y = self._linear_conv(self._bottleneck_conv(self._expand_conv(x)))
        return x + y if self.shortcut else y


class Stage(nn.Layer):
    """A first block that may stride, then ones with shortcuts."""

    def __init__(self, name: str, inputs: int, outputs: int, repeats: int, stride: int, expansion: int) -> None:
        super().__init__()
        self._first_block = InvertedResidual(inputs, outputs, stride, expansion, shortcut=False)
        self.names = [f"{name}_{index}" for index in range(2, repeats + 1)]
        for one in self.names:
            self.add_sublayer(one, InvertedResidual(outputs, outputs, 1, expansion, shortcut=True))

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        x = self._first_block(x)
        for name in self.names:
            x = getattr(self, name)(x)
        return x


class MobileNetV2(nn.Layer):
    """Float32 `(N, 3, H, W)` -> `(N, 1280)`, wider above scale 1. scale: width multiplier, rounded down."""

    pools_last = True

    def __init__(self, scale: float) -> None:
        super().__init__()
        width = int(32 * scale)
        self.conv1 = ConvBN(3, width, 3, 2)
        self.names = []
        for number, (expansion, channels, repeats, stride) in enumerate(STAGES, start=2):
            name, outputs = f"conv{number}", int(channels * scale)
            self.add_sublayer(name, Stage(name, width, outputs, repeats, stride, expansion))
            self.names.append(name)
            width = outputs
        self.features = int(EXPAND * scale) if scale > 1 else EXPAND
        self.conv9 = ConvBN(width, self.features, 1)
        self.pool2d_avg = nn.AdaptiveAvgPool2D(1)
        self.flatten = nn.Flatten()

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        x = self.conv1(x)
        for name in self.names:
            x = getattr(self, name)(x)
        return self.flatten(self.pool2d_avg(self.conv9(x)))
