"""Pieces that the backbones share."""

from __future__ import annotations

from typing import Literal

import paddle
from paddle import nn
from paddle.base import framework
from paddle.base.layer_helper import LayerHelper
from paddle.regularizer import L2Decay

EXPAND = 1280  # features of MobileNetV3 and PP-LCNet
ACTIVATIONS = {"relu": nn.ReLU, "relu6": nn.ReLU6, "hardswish": nn.Hardswish}


def make_divisible(value: float, divisor: int = 8) -> int:
    """The nearest multiple of `divisor`, at least one and never below 90 % of the value (MobileNetV2's rule)."""
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * value else rounded


def bent(x: paddle.Tensor, how: Literal["sigmoid", "tanh"]) -> paddle.Tensor:
    """By Paddle 3.3's own, which cannot be traced into the older program format; there, by the operator itself."""
    if framework.in_dynamic_or_pir_mode():
        found: paddle.Tensor = getattr(nn.functional, how)(x)
        return found
    helper = LayerHelper(how)
    found = helper.create_variable_for_type_inference(x.dtype)
    helper.append_op(type=how, inputs={"X": [x]}, outputs={"Out": [found]})
    return found


class ConvBN(nn.Layer):
    """Convolution without bias, batch norm, activation; parameters under `conv` and `bn`.

    A subclass says what the reference does otherwise for some networks. norm_decays: whether weight decay takes the
    batch norm too. kaiming: whether convolutions begin by He's rule (arXiv 1502.01852), else as Paddle has it.
    """

    norm_decays, kaiming = True, False

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1, act: str | None = None
    ) -> None:
        super().__init__()
        begin = paddle.ParamAttr(initializer=nn.initializer.KaimingNormal()) if self.kaiming else None
        padding = (kernel - 1) // 2
        self.conv = nn.Conv2D(
            inputs, outputs, kernel, stride, padding, groups=groups, weight_attr=begin, bias_attr=False
        )
        kept = [None if self.norm_decays else paddle.ParamAttr(regularizer=L2Decay(0.0)) for _ in range(2)]
        self.bn = nn.BatchNorm2D(outputs, weight_attr=kept[0], bias_attr=kept[1])
        self.act = ACTIVATIONS[act]() if act else None

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        x = self.bn(self.conv(x))
        return self.act(x) if self.act is not None else x


class FreeNormConvBN(ConvBN):
    """Whose batch norm no weight decay takes, as in the reference's small networks."""

    norm_decays = False


class KaimingConvBN(FreeNormConvBN):
    """Which begins by He's rule too."""

    kaiming = True


class ExpandedNetwork(nn.Layer):
    """What MobileNetV3 and PP-LCNet end with: pooling, a 1x1 convolution to 1,280, and where it is asked for the
    network's own linear layer `fc`, whose outputs are the features then. tanh: bent to -1 to 1, as for hashing.
    """

    pools_last = False

    def __init__(self, class_num: int | None, tanh: bool = False) -> None:
        super().__init__()
        self.features = class_num or EXPAND
        self.class_num, self.tanh = class_num, tanh

    def build_end(self, inputs: int) -> None:
        """Its layers, which come after the subclass's own."""
        self.avg_pool = nn.AdaptiveAvgPool2D(1)
        self.last_conv = nn.Conv2D(inputs, EXPAND, 1, bias_attr=False)
        self.hardswish = nn.Hardswish()
        self.dropout = nn.Dropout(0.2, mode="downscale_in_infer")
        self.flatten = nn.Flatten()
        linear = nn.Linear(EXPAND, self.class_num) if self.class_num else None
        self.fc = TanhEnd(linear) if linear is not None and self.tanh else linear

    def end(self, x: paddle.Tensor) -> paddle.Tensor:
        """Float32 `(N, C, H, W)` -> `(N, features)`."""
        x = self.flatten(self.dropout(self.hardswish(self.last_conv(self.avg_pool(x)))))
        return x if self.fc is None else self.fc(x)


class TanhEnd(nn.Layer):
    """A layer and tanh, parameters under `origin_layer`."""

    def __init__(self, layer: nn.Layer) -> None:
        super().__init__()
        self.origin_layer = layer

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        return bent(self.origin_layer(x), "tanh")


class SqueezeExcite(nn.Layer):
    """Channel attention (Hu et al., arXiv 1709.01507), hard sigmoid of the given slope; None: a true one."""

    def __init__(self, channels: int, slope: float | None) -> None:
        super().__init__()
        self.conv1 = nn.Conv2D(channels, channels // 4, 1)
        self.conv2 = nn.Conv2D(channels // 4, channels, 1)
        self.slope = slope

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        weights = nn.functional.adaptive_avg_pool2d(x, 1)
        weights = self.conv2(nn.functional.relu(self.conv1(weights)))
        if self.slope is None:
            return x * bent(weights, "sigmoid")
        return x * nn.functional.hardsigmoid(weights, slope=self.slope, offset=0.5)
