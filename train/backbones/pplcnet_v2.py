"""PP-LCNetV2 (PaddlePaddle, 2022) with the reference's parameter names: depthwise branches of several kernels while it
trains, one kernel with their sum where it is exported (Ding et al., "RepVGG", arXiv 2101.03697).
"""

from __future__ import annotations

import paddle
from paddle import nn

from .blocks import KaimingConvBN, SqueezeExcite, make_divisible

# input width, kernel, split pointwise, branches, squeeze and excite, shortcut
STAGES = (
    (64, 3, False, False, False, False),
    (128, 3, False, False, False, False),
    (256, 5, True, True, True, False),
    (512, 5, False, True, False, True),
)
EXPAND = 1280


class DepthwiseSeparable(nn.Layer):
    """Depthwise, squeeze and excite, pointwise."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        stride: int,
        kernel: int,
        split: bool = False,
        branches: bool = False,
        excite: bool = False,
        shortcut: bool = False,
    ) -> None:
        super().__init__()
        self.joined = False
        self.shortcut = shortcut and stride == 1 and inputs == outputs
        if branches:
            kernels = [size for size in range(kernel, 0, -2) if size > 1 or stride == 1]
            self.dw_conv_list = nn.LayerList(
                [KaimingConvBN(inputs, inputs, size, stride, groups=inputs) for size in kernels]
            )
            self.dw_conv = nn.Conv2D(inputs, inputs, kernel, stride, (kernel - 1) // 2, groups=inputs)
        else:
            self.dw_conv_list = None
            self.dw_conv = KaimingConvBN(inputs, inputs, kernel, stride, groups=inputs, act="relu")
        self.se = SqueezeExcite(inputs, slope=None) if excite else None
        self.split = split
        if split:
            self.pw_conv_1 = KaimingConvBN(inputs, outputs // 2, 1, act="relu")
            self.pw_conv_2 = KaimingConvBN(outputs // 2, outputs, 1, act="relu")
        else:
            self.pw_conv = KaimingConvBN(inputs, outputs, 1, act="relu")

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        y = self.depthwise(x)
        if self.se is not None:
            y = self.se(y)
        y = self.pw_conv_2(self.pw_conv_1(y)) if self.split else self.pw_conv(y)
        return x + y if self.shortcut else y

    def depthwise(self, x: paddle.Tensor) -> paddle.Tensor:
        """The branches' sum, or one kernel."""
        if self.dw_conv_list is None:
            return self.dw_conv(x)
        if self.joined:
            return nn.functional.relu(self.dw_conv(x))
        y = self.dw_conv_list[0](x)
        for branch in list(self.dw_conv_list)[1:]:
            y = y + branch(x)
        return nn.functional.relu(y)

    def join(self) -> None:
        """Puts the branches' sum, batch norms included, into the one kernel, which is used from then on."""
        if self.dw_conv_list is None:
            return
        size = self.dw_conv.weight.shape[-1]
        kernel = paddle.zeros_like(self.dw_conv.weight)
        bias = paddle.zeros_like(self.dw_conv.bias)
        for branch in self.dw_conv_list:
            norm = branch.bn
            scale = norm.weight / (norm._variance + norm._epsilon).sqrt()
            edge = (size - branch.conv.weight.shape[-1]) // 2
            kernel += nn.functional.pad(branch.conv.weight * scale.reshape((-1, 1, 1, 1)), [edge] * 4)
            bias += norm.bias - norm._mean * scale
        self.dw_conv.weight.set_value(kernel)
        self.dw_conv.bias.set_value(bias)
        self.joined = True


class PPLCNetV2(nn.Layer):
    """Float32 `(N, 3, H, W)` -> `(N, class_expand)`.

    scale: width multiplier; depths: blocks of the stages. shitu: PP-ShiTuV2's variant, whose last stage keeps its
    resolution and whose last layer is linear with a bias.
    """

    pools_last = False

    def __init__(self, scale: float, depths: tuple[int, ...], class_expand: int = EXPAND, shitu: bool = False) -> None:
        super().__init__()
        width = make_divisible(32 * scale)
        outputs = make_divisible(64 * scale)
        self.stem = nn.Sequential(KaimingConvBN(3, width, 3, 2, act="relu"), DepthwiseSeparable(width, outputs, 1, 3))
        self.stages = nn.LayerList()
        for (channels, kernel, split, branches, excite, shortcut), depth in zip(STAGES, depths, strict=True):
            last = channels == STAGES[-1][0]
            blocks = []
            for index in range(depth):
                inputs = make_divisible((channels if index == 0 else channels * 2) * scale)
                outputs = make_divisible(channels * 2 * scale)
                stride = 2 if index == 0 and not (shitu and last) else 1
                # The reference takes the shortcut's rule from before it changed the stride.
                short = shortcut and (index > 0 or not shitu)
                blocks.append(DepthwiseSeparable(inputs, outputs, stride, kernel, split, branches, excite, short))
            self.stages.append(nn.Sequential(*blocks))
        self.avg_pool = nn.AdaptiveAvgPool2D(1)
        self.last_conv = nn.Conv2D(outputs, class_expand, 1, bias_attr=None if shitu else False)
        self.act = nn.Identity() if shitu else nn.ReLU()
        self.dropout = nn.Dropout(0.2, mode="downscale_in_infer")
        self.flatten = nn.Flatten()
        self.features = class_expand

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        x = self.stem(x)
        for stage in self.stages:
            x = stage(x)
        return self.flatten(self.dropout(self.act(self.last_conv(self.avg_pool(x)))))
