"""MobileNetV3 (Howard et al., arXiv 1905.02244) with the reference's parameter names."""

from __future__ import annotations

import paddle
from paddle import nn

from .blocks import ExpandedNetwork, FreeNormConvBN, SqueezeExcite, make_divisible

# kernel, expanded width, output width, squeeze and excite, activation, stride: tables 1 and 2 of the paper
LAYERS: dict[str, tuple[tuple[int, int, int, bool, str, int], ...]] = {
    "large": (
        (3, 16, 16, False, "relu", 1),
        (3, 64, 24, False, "relu", 2),
        (3, 72, 24, False, "relu", 1),
        (5, 72, 40, True, "relu", 2),
        (5, 120, 40, True, "relu", 1),
        (5, 120, 40, True, "relu", 1),
        (3, 240, 80, False, "hardswish", 2),
        (3, 200, 80, False, "hardswish", 1),
        (3, 184, 80, False, "hardswish", 1),
        (3, 184, 80, False, "hardswish", 1),
        (3, 480, 112, True, "hardswish", 1),
        (3, 672, 112, True, "hardswish", 1),
        (5, 672, 160, True, "hardswish", 2),
        (5, 960, 160, True, "hardswish", 1),
        (5, 960, 160, True, "hardswish", 1),
    ),
    "small": (
        (3, 16, 16, True, "relu", 2),
        (3, 72, 24, False, "relu", 2),
        (3, 88, 24, False, "relu", 1),
        (5, 96, 40, True, "hardswish", 2),
        (5, 240, 40, True, "hardswish", 1),
        (5, 240, 40, True, "hardswish", 1),
        (5, 120, 48, True, "hardswish", 1),
        (5, 144, 48, True, "hardswish", 1),
        (5, 288, 96, True, "hardswish", 2),
        (5, 576, 96, True, "hardswish", 1),
        (5, 576, 96, True, "hardswish", 1),
    ),
}
SQUEEZE = {"large": 960, "small": 576}


class InvertedResidual(nn.Layer):
    """Expand, depthwise, squeeze and excite, project."""

    def __init__(
        self, inputs: int, middle: int, outputs: int, kernel: int, stride: int, excite: bool, act: str
    ) -> None:
        super().__init__()
        self.expand_conv = FreeNormConvBN(inputs, middle, 1, act=act)
        self.bottleneck_conv = FreeNormConvBN(middle, middle, kernel, stride, groups=middle, act=act)
        self.mid_se = SqueezeExcite(middle, slope=0.2) if excite else None
        self.linear_conv = FreeNormConvBN(middle, outputs, 1)
        self.shortcut = stride == 1 and inputs == outputs

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        y = self.bottleneck_conv(self.expand_conv(x))
        if self.mid_se is not None:
            y = self.mid_se(y)
        y = self.linear_conv(y)
        return x + y if self.shortcut else y


class MobileNetV3(ExpandedNetwork):
    """Float32 `(N, 3, H, W)` -> `(N, 1280)`. size: small or large; scale: width multiplier."""

    def __init__(self, size: str, scale: float, class_num: int | None = None) -> None:
        super().__init__(class_num)
        width = make_divisible(16 * scale)
        self.conv = FreeNormConvBN(3, width, 3, 2, act="hardswish")
        blocks = []
        for kernel, middle, outputs, excite, act, stride in LAYERS[size]:
            out = make_divisible(outputs * scale)
            blocks.append(InvertedResidual(width, make_divisible(middle * scale), out, kernel, stride, excite, act))
            width = out
        self.blocks = nn.Sequential(*blocks)
        squeeze = make_divisible(SQUEEZE[size] * scale)
        self.last_second_conv = FreeNormConvBN(width, squeeze, 1, act="hardswish")
        self.build_end(squeeze)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        return self.end(self.last_second_conv(self.blocks(self.conv(x))))
