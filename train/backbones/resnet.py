"""ResNet-50 (He et al., arXiv 1512.03385) with the reference's parameter names."""

from __future__ import annotations

import paddle
from paddle import nn

from .blocks import ConvBN

STAGES = ((3, 64, 1), (4, 128, 2), (6, 256, 2), (3, 512, 2))  # blocks, width, first stride


class Bottleneck(nn.Layer):
    """1x1, 3x3, 1x1 with a shortcut; the 3x3 carries the stride."""

    def __init__(self, inputs: int, width: int, stride: int, project: bool) -> None:
        super().__init__()
        self.conv0 = ConvBN(inputs, width, 1, act="relu")
        self.conv1 = ConvBN(width, width, 3, stride, act="relu")
        self.conv2 = ConvBN(width, width * 4, 1)
        self.short = ConvBN(inputs, width * 4, 1, stride) if project else None

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        shortcut = self.short(x) if self.short is not None else x
        return nn.functional.relu(self.conv2(self.conv1(self.conv0(x))) + shortcut)


class ResNet50(nn.Layer):
    """Float32 `(N, 3, H, W)` -> `(N, 2048)`.

    stem_act: "relu" or None (the XBM reference has none). max_pool_head: global max instead of mean pooling.
    """

    features = 2048

    def __init__(self, stem_act: str | None = "relu", max_pool_head: bool = False) -> None:
        super().__init__()
        self.stem = nn.Sequential(ConvBN(3, 64, 7, 2, act=stem_act))
        self.max_pool = nn.MaxPool2D(3, 2, padding=1)
        blocks, inputs = [], 64
        for count, width, stride in STAGES:
            for index in range(count):
                blocks.append(Bottleneck(inputs, width, stride if index == 0 else 1, project=index == 0))
                inputs = width * 4
        self.blocks = nn.Sequential(*blocks)
        self.avg_pool = nn.AdaptiveMaxPool2D(1) if max_pool_head else nn.AdaptiveAvgPool2D(1)
        self.flatten = nn.Flatten()

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        return self.flatten(self.avg_pool(self.blocks(self.max_pool(self.stem(x)))))
