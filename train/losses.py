"""Pair losses over a batch and over the cross-batch memory."""

from __future__ import annotations

import paddle
from paddle import nn

from .memory import CrossBatchMemory


def contrastive(
    queries: paddle.Tensor,
    query_labels: paddle.Tensor,
    keys: paddle.Tensor,
    key_labels: paddle.Tensor,
    own_slots: paddle.Tensor,
    margin: float,
) -> paddle.Tensor:
    """Sum over positive pairs of `1 - s` and over negative ones with `s > margin` of `s`, divided by B.

    queries float32 `(B, D)` and keys float32 `(M, D)`, L2-normalised; labels int64 `(B,)` and `(M,)`;
    own_slots int64 `(B,)`: the key that is the query itself, left out. Scalar float32.
    """
    similarity = paddle.matmul(queries, keys, transpose_y=True)
    same = query_labels.unsqueeze(1) == key_labels.unsqueeze(0)
    itself = own_slots.unsqueeze(1) == paddle.arange(keys.shape[0], dtype="int64").unsqueeze(0)
    positive = paddle.logical_and(same, paddle.logical_not(itself)).astype("float32")
    hard_negative = paddle.logical_and(paddle.logical_not(same), similarity > margin).astype("float32")
    total = ((1.0 - similarity) * positive + similarity * hard_negative).sum()
    return total / queries.shape[0]


class ContrastiveLoss(nn.Layer):
    """`contrastive` of a batch with itself. feats `(B, D)` any float type, labels int64 `(B,)` or `(B, 1)`."""

    def __init__(self, margin: float, normalize_feature: bool = True) -> None:
        super().__init__()
        self.margin, self.normalize_feature = margin, normalize_feature

    def prepare(self, feats: paddle.Tensor, labels: paddle.Tensor) -> tuple[paddle.Tensor, paddle.Tensor]:
        """Float32 features, normalised if asked; flat labels."""
        feats = feats.astype("float32")
        if self.normalize_feature:
            feats = nn.functional.normalize(feats, p=2, axis=1)
        return feats, labels.reshape([-1])

    def batch_loss(self, feats: paddle.Tensor, labels: paddle.Tensor) -> paddle.Tensor:
        """The loss of prepared features against each other."""
        itself = paddle.arange(feats.shape[0], dtype="int64")
        return contrastive(feats, labels, feats, labels, itself, self.margin)

    def forward(self, feats: paddle.Tensor, labels: paddle.Tensor) -> paddle.Tensor:
        return self.batch_loss(*self.prepare(feats, labels))


class XbmContrastiveLoss(ContrastiveLoss):
    """Batch loss plus `xbm_weight` times the loss against the memory, from iteration `start_iter` + 1 on.

    The batch is enqueued first, so that its pairs are in the memory too; each query then leaves out exactly the
    slot that holds itself, and no near-duplicate with it.
    """

    def __init__(
        self,
        xbm_size: int,
        embedding_size: int,
        margin: float,
        xbm_weight: float = 1.0,
        start_iter: int = 0,
        normalize_feature: bool = True,
    ) -> None:
        super().__init__(margin, normalize_feature)
        self.xbm = CrossBatchMemory(xbm_size, embedding_size)
        self.xbm_weight, self.start_iter = xbm_weight, start_iter
        self.iteration = 0

    def forward(self, feats: paddle.Tensor, labels: paddle.Tensor) -> paddle.Tensor:
        feats, labels = self.prepare(feats, labels)
        loss = self.batch_loss(feats, labels)
        self.iteration += 1
        if self.iteration > self.start_iter:
            slots = self.xbm.enqueue(feats, labels)
            keys, key_labels = self.xbm.get()
            loss = loss + self.xbm_weight * contrastive(feats, labels, keys, key_labels, slots, self.margin)
        return loss
