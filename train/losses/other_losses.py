"""Losses that are no pair losses over similarities: of logits, of centres, of distances between raw features."""

from __future__ import annotations

import paddle
from paddle import nn
from paddle.nn import functional

from ..distributed import gather_labels, gather_with_gradient

FAR = 1e12  # stands for an infinite distance
SMALLEST = 1e-12  # of squared distances, below the root


class CrossEntropy(nn.Layer):
    """The mean cross entropy of logits; smoothing: the share of each label that all classes get alike."""

    def __init__(self, smoothing: float | None = None) -> None:
        super().__init__()
        self.smoothing = smoothing

    def forward(self, logits: paddle.Tensor, labels: paddle.Tensor) -> paddle.Tensor:
        """Float32 `(N, C)` and int64 `(N,)` to a float32 scalar."""
        logs = functional.log_softmax(logits, axis=1)
        own = -paddle.take_along_axis(logs, labels.unsqueeze(1), axis=1).mean()
        if self.smoothing is None:
            return own
        return (1 - self.smoothing) * own - self.smoothing * logs.mean()


class HardTriplet(nn.Layer):
    """Per query, `d_p - d_n + margin` where above 0, of the farthest image of its class and the nearest of another by
    Euclidean distance, 0 without another class; the mean over queries ("batch hard" of Hermans et al., arXiv
    1703.07737). The batch is that of all processes.
    """

    def __init__(self, margin: float, normalize_feature: bool) -> None:
        super().__init__()
        self.margin, self.normalize_feature = margin, normalize_feature

    def forward(self, feats: paddle.Tensor, labels: paddle.Tensor) -> paddle.Tensor:
        """Float32 `(N, D)` and int64 `(N,)` to a float32 scalar."""
        feats, labels = gather_with_gradient(feats), gather_labels(labels)
        if self.normalize_feature:
            feats = functional.normalize(feats, axis=1)
        squares = paddle.square(feats).sum(axis=1, keepdim=True)
        squares = squares + squares.t() - 2 * paddle.matmul(feats, feats, transpose_y=True)
        distances = paddle.sqrt(paddle.clip(squares, min=SMALLEST))
        same = labels.unsqueeze(1) == labels.unsqueeze(0)
        farthest = paddle.where(same, distances, paddle.zeros([1])).max(axis=1)
        nearest = paddle.where(same, paddle.full([1], FAR), distances).min(axis=1)
        told = (nearest < FAR).astype("float32")
        return (told * functional.relu(farthest - nearest + self.margin)).mean()


class Center(nn.Layer):
    """The mean squared distance to the class's centre, which is learnt too (Wen et al., ECCV 2016), under `centers`.
    The batch is that of all processes.
    """

    def __init__(self, classes: int, dim: int) -> None:
        super().__init__()
        self.centers = self.create_parameter([classes, dim], default_initializer=nn.initializer.Normal(0.0, 1.0))

    def forward(self, feats: paddle.Tensor, labels: paddle.Tensor) -> paddle.Tensor:
        """Float32 `(N, D)` and int64 `(N,)` to a float32 scalar."""
        feats, labels = (
            gather_with_gradient(feats),
            gather_labels(labels),
        )  # so that all processes move the same centres
        distances = paddle.square(feats - self.centers.gather(labels)).sum(axis=1)
        return paddle.clip(distances, SMALLEST, FAR).mean()
