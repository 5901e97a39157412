"""Class heads: logits of an embedding's class; parameters under the reference's names.

Margins are for training: in evaluation a head that has one gives cosines.
"""

from __future__ import annotations

import math
from typing import Any

import paddle
from paddle import nn
from paddle.nn import functional

from .config.arch import (
    AdaMarginHead,
    ArcMarginHead,
    CircleMarginHead,
    CosMarginHead,
    FCHead,
    Head,
)
from .network import linear

SAFE = 1e-6  # below the root of the sine
ADA_SAFE = 1e-3  # of AdaFace's cosines, angles and deviations


class Linear(nn.Layer):
    """Logits by a linear layer, parameters under `fc`."""

    def __init__(self, options: FCHead) -> None:
        super().__init__()
        self.fc = linear(options.embedding_size, options.class_num, options.weight_attr, options.bias_attr)

    def forward(self, embeddings: paddle.Tensor, labels: paddle.Tensor) -> paddle.Tensor:
        """Float32 `(N, D)` and int64 `(N,)` to float32 `(N, C)`."""
        return self.fc(embeddings)


class CosineHead(nn.Layer):
    """Cosines of embeddings with one vector a class, in which a subclass puts a margin."""

    def __init__(self, options: Head) -> None:
        super().__init__()
        self.classes = options.class_num
        self.weight = self.create_parameter(
            [options.embedding_size, options.class_num], default_initializer=nn.initializer.XavierNormal()
        )

    def forward(self, embeddings: paddle.Tensor, labels: paddle.Tensor) -> paddle.Tensor:
        """Float32 `(N, D)` and int64 `(N,)` to float32 `(N, C)`."""
        rows = functional.normalize(embeddings, axis=1)
        cosines = paddle.matmul(rows, functional.normalize(self.weight, axis=0))
        return self.logits(cosines, labels) if self.training else cosines

    def logits(self, cosines: paddle.Tensor, labels: paddle.Tensor) -> paddle.Tensor:
        """From cosines `(N, C)`."""
        raise NotImplementedError


class ArcMargin(CosineHead):
    """`cos(angle + margin)`; beyond `pi - margin`, where that would rise again, the cosine less a constant."""

    def __init__(self, options: ArcMarginHead) -> None:
        super().__init__(options)
        self.margin, self.scale, self.easy = options.margin, options.scale, options.easy_margin

    def logits(self, cosines: paddle.Tensor, labels: paddle.Tensor) -> paddle.Tensor:
        own = paddle.take_along_axis(cosines, labels.unsqueeze(1), axis=1)
        sines = paddle.sqrt(1.0 - paddle.square(own) + SAFE)
        turned = own * math.cos(self.margin) - sines * math.sin(self.margin)
        if self.easy:
            turned = paddle.where(own > 0, turned, own)
        else:
            past = own - math.sin(self.margin) * self.margin
            turned = paddle.where(own > -math.cos(self.margin), turned, past)
        return self.scale * (cosines + functional.one_hot(labels, self.classes) * (turned - own))


class CosMargin(CosineHead):
    """`cos(angle) - margin`."""

    def __init__(self, options: CosMarginHead) -> None:
        super().__init__(options)
        self.margin, self.scale = options.margin, options.scale

    def logits(self, cosines: paddle.Tensor, labels: paddle.Tensor) -> paddle.Tensor:
        return self.scale * (cosines - self.margin * functional.one_hot(labels, self.classes))


class CircleMargin(CosineHead):
    """Each cosine weighed by how far it is from where it should be; no gradient through the weights (eq. 6)."""

    def __init__(self, options: CircleMarginHead) -> None:
        super().__init__(options)
        self.margin, self.scale = options.margin, options.scale

    def logits(self, cosines: paddle.Tensor, labels: paddle.Tensor) -> paddle.Tensor:
        fixed = cosines.detach()
        own = paddle.clip(1 + self.margin - fixed, min=0.0) * (cosines - (1 - self.margin))
        others = paddle.clip(fixed + self.margin, min=0.0) * (cosines - self.margin)
        return self.scale * paddle.where(functional.one_hot(labels, self.classes) > 0, own, others)


class AdaMargin(nn.Layer):
    """A margin by the embedding's length against the mean length, in the angle and in the cosine (eq. 12 to 16)."""

    def __init__(self, options: AdaMarginHead) -> None:
        super().__init__()
        self.options = options
        self.kernel = self.create_parameter(
            [options.embedding_size, options.class_num], default_initializer=nn.initializer.Uniform(-1.0, 1.0)
        )
        with paddle.no_grad():
            self.kernel.set_value(functional.normalize(self.kernel, axis=0))
        self.register_buffer("t", paddle.zeros([1]))
        self.register_buffer("batch_mean", paddle.ones([1]) * 20)
        self.register_buffer("batch_std", paddle.ones([1]) * 100)

    def forward(self, embeddings: paddle.Tensor, labels: paddle.Tensor) -> paddle.Tensor:
        """Float32 `(N, D)` and int64 `(N,)` to float32 `(N, C)`."""
        options = self.options
        cosines = paddle.matmul(functional.normalize(embeddings, axis=1), functional.normalize(self.kernel, axis=0))
        if not self.training:
            return cosines
        cosines = paddle.clip(cosines, -1 + ADA_SAFE, 1 - ADA_SAFE)
        with paddle.no_grad():
            lengths = paddle.clip(paddle.norm(embeddings, 2, 1, True), 0.001, 100)
            for buffer, now in ((self.batch_mean, lengths.mean()), (self.batch_std, lengths.std())):
                buffer.set_value(now.reshape([1]) * options.t_alpha + (1 - options.t_alpha) * buffer)
            quality = (lengths - self.batch_mean) / (self.batch_std + ADA_SAFE)
            quality = paddle.clip(quality * options.h, -1, 1)
            own = functional.one_hot(labels, options.class_num)
        angles = paddle.acos(cosines) - own * options.m * quality
        cosines = paddle.cos(paddle.clip(angles, ADA_SAFE, math.pi - ADA_SAFE))
        return options.s * (cosines - own * (options.m + options.m * quality))


HEADS: dict[type, Any] = {
    FCHead: Linear,
    ArcMarginHead: ArcMargin,
    CosMarginHead: CosMargin,
    CircleMarginHead: CircleMargin,
    AdaMarginHead: AdaMargin,
}


def build_head(options: Head) -> Any:
    """The class head of these options."""
    return HEADS[type(options)](options)
