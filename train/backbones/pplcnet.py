"""PP-LCNet (Cui et al., arXiv 2109.15099) with the reference's parameter names."""

from __future__ import annotations

import paddle
from paddle import nn

from ...runtimes.core.errors import InputError
from .blocks import ExpandedNetwork, KaimingConvBN, SqueezeExcite, make_divisible

# per stage: kernel, output width, stride, squeeze and excite
STAGES: dict[str, tuple[tuple[int, int, int, bool], ...]] = {
    "blocks2": ((3, 32, 1, False),),
    "blocks3": ((3, 64, 2, False), (3, 64, 1, False)),
    "blocks4": ((3, 128, 2, False), (3, 128, 1, False)),
    "blocks5": ((3, 256, 2, False), *[(5, 256, 1, False)] * 5),
    "blocks6": ((5, 512, 2, True), (5, 512, 1, True)),
}


class DepthwiseSeparable(nn.Layer):
    """Depthwise, squeeze and excite, pointwise."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, excite: bool) -> None:
        super().__init__()
        self.dw_conv = KaimingConvBN(inputs, inputs, kernel, stride, groups=inputs, act="hardswish")
        self.se = SqueezeExcite(inputs, slope=1 / 6) if excite else None
        self.pw_conv = KaimingConvBN(inputs, outputs, 1, act="hardswish")

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        x = self.dw_conv(x)
        if self.se is not None:
            x = self.se(x)
        return self.pw_conv(x)


class PPLCNet(ExpandedNetwork):
    """Float32 `(N, 3, H, W)` -> `(N, 1280)`. scale: width multiplier."""

    def __init__(self, scale: float, class_num: int | None = None, tanh: bool = False) -> None:
        super().__init__(class_num, tanh)
        if tanh and class_num is None:
            raise InputError(
                "Arch.Backbone.class_num: tanh is behind the network's own linear layer: expected how many outputs it"
                " has, and no Arch.BackboneStopLayer"
            )
        width = make_divisible(16 * scale)
        self.conv1 = KaimingConvBN(3, width, 3, 2, act="hardswish")
        for name, layers in STAGES.items():
            blocks = []
            for kernel, outputs, stride, excite in layers:
                out = make_divisible(outputs * scale)
                blocks.append(DepthwiseSeparable(width, out, kernel, stride, excite))
                width = out
            setattr(self, name, nn.Sequential(*blocks))
        self.build_end(width)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        x = self.conv1(x)
        for name in STAGES:
            x = getattr(self, name)(x)
        return self.end(x)
