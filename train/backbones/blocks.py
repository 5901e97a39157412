"""Pieces that the backbones share."""

from __future__ import annotations

import paddle
from paddle import nn
from paddle.base import framework
from paddle.base.layer_helper import LayerHelper
from paddle.regularizer import L2Decay

ACTIVATIONS = {"relu": nn.ReLU, "relu6": nn.ReLU6, "hardswish": nn.Hardswish}


def make_divisible(value: float, divisor: int = 8) -> int:
    """The nearest multiple of `divisor`, at least one and never below 90 % of the value (MobileNetV2's rule)."""
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * value else rounded


def sigmoid(x: paddle.Tensor) -> paddle.Tensor:
    """Paddle 3.3's own, which cannot be traced into the older program format; there, the operator itself."""
    if framework.in_dynamic_or_pir_mode():
        return nn.functional.sigmoid(x)
    helper = LayerHelper("sigmoid")
    found = helper.create_variable_for_type_inference(x.dtype)
    helper.append_op(type="sigmoid", inputs={"X": [x]}, outputs={"Out": [found]})
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
            return x * sigmoid(weights)
        return x * nn.functional.hardsigmoid(weights, slope=self.slope, offset=0.5)
