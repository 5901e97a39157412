"""ResNet-50 (He et al., arXiv 1512.03385) with the reference's parameter names."""

from __future__ import annotations

import paddle
from paddle import nn

from .blocks import ConvBN

STAGES = ((3, 64, 1), (4, 128, 2), (6, 256, 2), (3, 512, 2))  # blocks, width, first stride


class Bottleneck(nn.Layer):
    """1x1, 3x3, 1x1 with a shortcut; the 3x3 carries the stride. pooled: the shortcut averages before it projects."""

    def __init__(self, inputs: int, width: int, stride: int, project: bool, pooled: bool = False) -> None:
        super().__init__()
        self.conv0 = ConvBN(inputs, width, 1, act="relu")
        self.conv1 = ConvBN(width, width, 3, stride, act="relu")
        self.conv2 = ConvBN(width, width * 4, 1)
        self.short = ConvBN(inputs, width * 4, 1, 1 if pooled else stride) if project else None
        self.pool = nn.AvgPool2D(2, stride, padding="SAME", ceil_mode=True) if pooled and stride > 1 else None

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        shortcut = x if self.pool is None else self.pool(x)
        if self.short is not None:
            shortcut = self.short(shortcut)
        return nn.functional.relu(self.conv2(self.conv1(self.conv0(x))) + shortcut)


class ResNet50(nn.Layer):
    """Float32 `(N, 3, H, W)` -> `(N, 2048)`.

    stem_act: "relu" or None (the XBM reference has none). max_pool_head: global max instead of mean pooling.
    vd: three convolutions as stem and averaging shortcuts (He et al., arXiv 1812.01187). last_stride: of the last
    stage; 1 keeps its resolution, as for re-identification (Sun et al., arXiv 1711.09349).
    """

    features = 2048
    pools_last = True

    def __init__(
        self,
        stem_act: str | None = "relu",
        max_pool_head: bool = False,
        vd: bool = False,
        last_stride: int = 2,
    ) -> None:
        super().__init__()
        stem = ((3, 32, 3, 2), (32, 32, 3, 1), (32, 64, 3, 1)) if vd else ((3, 64, 7, 2),)
        self.stem = nn.Sequential(*(ConvBN(*one, act=stem_act) for one in stem))
        self.max_pool = nn.MaxPool2D(3, 2, padding=1)
        blocks, inputs = [], 64
        for number, (count, width, first_stride) in enumerate(STAGES):
            first = last_stride if number == len(STAGES) - 1 else first_stride
            for index in range(count):
                stride = first if index == 0 else 1
                blocks.append(Bottleneck(inputs, width, stride, index == 0, vd and index == 0 and number > 0))
                inputs = width * 4
        self.blocks = nn.Sequential(*blocks)
        self.avg_pool = nn.AdaptiveMaxPool2D(1) if max_pool_head else nn.AdaptiveAvgPool2D(1)
        self.flatten = nn.Flatten()

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        return self.flatten(self.avg_pool(self.blocks(self.max_pool(self.stem(x)))))
