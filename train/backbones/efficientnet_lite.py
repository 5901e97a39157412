"""EfficientNet-Lite (Liu, "Higher accuracy on vision models with EfficientNet-Lite", 2020): EfficientNet (Tan and Le,
arXiv 1905.11946) with ReLU6 and without squeeze and excite, made for integer arithmetic.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import paddle
from paddle import nn

from .blocks import ConvBN, make_divisible

# repeats, kernel, stride, expansion, output width: table 1 of the paper
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
STEM, HEAD = 32, 1280  # not scaled
EPSILON, MOMENTUM = 1e-3, 0.99  # of the batch norms
# Of the PyTorch original: names there, and here.
TORCH_NAMES = (
    (re.compile(r"^_conv_stem\."), "stem.conv."),
    (re.compile(r"^_bn0\."), "stem.bn."),
    (re.compile(r"^_conv_head\."), "head.conv."),
    (re.compile(r"^_bn1\."), "head.bn."),
    (re.compile(r"^_fc\."), "fc."),
    (re.compile(r"^_blocks\.(\d+)\._expand_conv\."), r"blocks.\1.expand.conv."),
    (re.compile(r"^_blocks\.(\d+)\._bn0\."), r"blocks.\1.expand.bn."),
    (re.compile(r"^_blocks\.(\d+)\._depthwise_conv\."), r"blocks.\1.depthwise.conv."),
    (re.compile(r"^_blocks\.(\d+)\._bn1\."), r"blocks.\1.depthwise.bn."),
    (re.compile(r"^_blocks\.(\d+)\._project_conv\."), r"blocks.\1.project.conv."),
    (re.compile(r"^_blocks\.(\d+)\._bn2\."), r"blocks.\1.project.bn."),
    (re.compile(r"\.running_mean$"), "._mean"),
    (re.compile(r"\.running_var$"), "._variance"),
)


def same_padding(sizes: Sequence[int], kernel: int, stride: int) -> list[int]:
    """TensorFlow's "SAME": top, bottom, left, right, the odd one at the end."""
    padding: list[int] = []
    for size in sizes:
        whole = max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
        padding += [whole // 2, whole - whole // 2]
    return padding


class SameConvBN(ConvBN):
    """Padded as TensorFlow does: where it strides, by the size of its input."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1, act: str | None = None
    ) -> None:
        super().__init__(inputs, outputs, kernel, stride, groups, act)
        self.bn = nn.BatchNorm2D(outputs, momentum=MOMENTUM, epsilon=EPSILON)
        self.kernel, self.stride, self.groups = kernel, stride, groups

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        padding = same_padding(x.shape[2:], self.kernel, self.stride)
        x = nn.functional.conv2d(x, self.conv.weight, None, self.stride, padding, groups=self.groups)
        x = self.bn(x)
        return self.act(x) if self.act is not None else x


class InvertedResidual(nn.Layer):
    """Expand, depthwise, project."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        middle = inputs * expansion
        self.expand = SameConvBN(inputs, middle, 1, act="relu6") if expansion > 1 else None
        self.depthwise = SameConvBN(middle, middle, kernel, stride, groups=middle, act="relu6")
        self.project = SameConvBN(middle, outputs, 1)
        self.shortcut = stride == 1 and inputs == outputs

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        y = self.expand(x) if self.expand is not None else x
        y = self.project(self.depthwise(y))
        return x + y if self.shortcut else y


class EfficientNetLite(nn.Layer):
    """Float32 `(N, 3, H, W)` -> `(N, 1280)`. width, depth: multipliers of the stages but for stem and head."""

    features = HEAD
    pools_last = True
    torch_names = TORCH_NAMES

    def __init__(self, width: float, depth: float) -> None:
        super().__init__()
        self.stem = SameConvBN(3, STEM, 3, 2, act="relu6")
        blocks, inputs = [], STEM
        for number, (repeats, kernel, first_stride, expansion, channels) in enumerate(STAGES):
            outputs = make_divisible(channels * width)
            fixed = number in (0, len(STAGES) - 1)
            for index in range(repeats if fixed else math.ceil(repeats * depth)):
                stride = first_stride if index == 0 else 1
                blocks.append(InvertedResidual(inputs, outputs, kernel, stride, expansion))
                inputs = outputs
        self.blocks = nn.Sequential(*blocks)
        self.head = SameConvBN(inputs, HEAD, 1, act="relu6")
        self.avg_pool = nn.AdaptiveAvgPool2D(1)
        self.flatten = nn.Flatten()

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        return self.flatten(self.avg_pool(self.head(self.blocks(self.stem(x)))))
