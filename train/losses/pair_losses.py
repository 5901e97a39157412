"""Pair losses over similarities, each with its own gradient.

A pair loss sees queries float32 `(B, D)` and keys float32 `(M, D)`, both L2-normalised, through their similarities
`s = queries @ keys.T`. It gives its value and its derivative by `s`, from which the gradient by the queries is one
matrix product. Nothing is kept for autograd.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import paddle

CHUNK = 2048  # keys at a time on a CPU: 64 rows of similarities stay in the cache
PIECE = 2**27  # similarities at a time on a GPU: with what is made of them about 1 GiB


class PairLoss(ABC):
    """What a pair loss must say: `weigh`. labels are int64 `(B,)` and `(M,)`.

    epsilon: None leaves out of the positives the key that is the query itself, by its place; a number leaves out every
    positive with `s >= 1 - epsilon` instead, near-duplicates with it, as PaddleClas does.
    """

    def __init__(self, epsilon: float | None = None) -> None:
        self.epsilon = epsilon

    @abstractmethod
    def weigh(
        self, similarity: paddle.Tensor, positive: paddle.Tensor, negative: paddle.Tensor
    ) -> tuple[paddle.Tensor, paddle.Tensor]:
        """The loss, float32 scalar, and its derivative by the similarities, both `(B, M)`; masks bool `(B, M)`."""

    def batch(self, queries: paddle.Tensor, labels: paddle.Tensor) -> tuple[paddle.Tensor, paddle.Tensor]:
        """The loss of a batch with itself, and its gradient float32 `(B, D)` through both sides of every pair."""
        own = paddle.arange(queries.shape[0], dtype="int64")
        loss, weights = self._dense(queries, labels, queries, labels, own)
        return loss, paddle.matmul(weights + weights.t(), queries)

    def memory(
        self,
        queries: paddle.Tensor,
        query_labels: paddle.Tensor,
        keys: paddle.Tensor,
        key_labels: paddle.Tensor,
        own_slots: paddle.Tensor,
    ) -> tuple[paddle.Tensor, paddle.Tensor]:
        """The loss of a batch against constant keys, and its gradient by the queries, float32 `(B, D)`.

        own_slots int64 `(B,)`: the key that is the query itself.
        """
        loss, weights = self._dense(queries, query_labels, keys, key_labels, own_slots)
        return loss, paddle.matmul(weights, keys)

    def _dense(
        self,
        queries: paddle.Tensor,
        query_labels: paddle.Tensor,
        keys: paddle.Tensor,
        key_labels: paddle.Tensor,
        own: paddle.Tensor,
    ) -> tuple[paddle.Tensor, paddle.Tensor]:
        similarity = paddle.matmul(queries, keys, transpose_y=True)
        same = query_labels.unsqueeze(1) == key_labels.unsqueeze(0)
        columns = paddle.arange(keys.shape[0], dtype="int64")
        return self.weigh(similarity, self.positives(similarity, same, own, columns), paddle.logical_not(same))

    def positives(
        self, similarity: paddle.Tensor, same: paddle.Tensor, own: paddle.Tensor, columns: paddle.Tensor
    ) -> paddle.Tensor:
        """The pairs of one class without the self-match, bool `(B, M)`. columns: the slots that the keys have."""
        if self.epsilon is None:
            return paddle.logical_and(same, own.unsqueeze(1) != columns.unsqueeze(0))
        return paddle.logical_and(same, similarity < 1.0 - self.epsilon)


class Contrastive(PairLoss):
    """Per query, the sum of `1 - s` over positives and of `s` over negatives with `s > margin`; the mean over queries.

    Hadsell et al. (2006), in the form of XBM (arXiv 1912.06798, eq. 1).
    """

    def __init__(self, margin: float, epsilon: float | None = None) -> None:
        super().__init__(epsilon)
        self.margin = margin

    def weigh(
        self, similarity: paddle.Tensor, positive: paddle.Tensor, negative: paddle.Tensor
    ) -> tuple[paddle.Tensor, paddle.Tensor]:
        hard = paddle.logical_and(negative, similarity > self.margin).astype("float32")
        weights = hard - positive.astype("float32")
        loss = positive.astype("float32").sum() + (weights * similarity).sum()
        return loss / similarity.shape[0], weights / similarity.shape[0]

    def memory(
        self,
        queries: paddle.Tensor,
        query_labels: paddle.Tensor,
        keys: paddle.Tensor,
        key_labels: paddle.Tensor,
        own_slots: paddle.Tensor,
    ) -> tuple[paddle.Tensor, paddle.Tensor]:
        """The same as `weigh` gives, without ever holding `(B, M)`.

        The loss is linear in `s` where it is not flat, so value and gradient both follow from `weights @ keys`. Every
        key is first taken for a negative, in chunks; the few keys of the batch's classes are then put right.
        """
        gradient = paddle.zeros_like(queries)
        count = keys_at_a_time(queries.shape[0], queries.place.is_gpu_place())
        for start in range(0, keys.shape[0], count):
            chunk = keys[start : start + count]
            similarity = paddle.matmul(queries, chunk, transpose_y=True)
            gradient = gradient + paddle.matmul((similarity > self.margin).astype("float32"), chunk)
        columns = labelled(key_labels, query_labels)
        kin = keys.gather(columns)
        similarity = paddle.matmul(queries, kin, transpose_y=True)
        same = query_labels.unsqueeze(1) == key_labels.gather(columns).unsqueeze(0)
        positive = self.positives(similarity, same, own_slots, columns).astype("float32")
        mistaken = paddle.logical_and(same, similarity > self.margin).astype("float32")
        gradient = gradient - paddle.matmul(positive + mistaken, kin)
        loss = positive.sum() + (queries * gradient).sum()
        return loss / queries.shape[0], gradient / queries.shape[0]


class TripletMargin(PairLoss):
    """Per query, the mean of `s_n - s_p + margin` over its triplets where that is above 0; the mean over queries.

    All triplets, averaged over those that count: "batch all" of Hermans et al. (arXiv 1703.07737), on similarities.
    """

    def __init__(self, margin: float, epsilon: float | None = None) -> None:
        super().__init__(epsilon)
        self.margin = margin

    def weigh(
        self, similarity: paddle.Tensor, positive: paddle.Tensor, negative: paddle.Tensor
    ) -> tuple[paddle.Tensor, paddle.Tensor]:
        """No triplet is ever listed: a negative counts with the `c` least similar positives, found by bisection."""
        rows = similarity.shape[0]
        infinite = paddle.full([1], float("inf"), dtype="float32")
        most = max(int(positive.astype("int64").sum(axis=1).max()), 1)
        masked = paddle.where(positive, similarity, infinite)
        order = paddle.argsort(masked, axis=1)[:, :most]
        ascending = paddle.take_along_axis(masked, order, axis=1)
        counts = paddle.searchsorted(ascending, similarity + self.margin)
        counts = paddle.where(negative, counts, paddle.zeros_like(counts))
        # Positive of rank r stands in a triplet with every negative that counts with more than r positives.
        flat = (counts + paddle.arange(rows, dtype="int64").unsqueeze(1) * (most + 1)).reshape([-1])
        histogram = paddle.bincount(flat, minlength=rows * (most + 1)).reshape([rows, most + 1]).astype("float32")
        partners = histogram.sum(axis=1, keepdim=True) - paddle.cumsum(histogram, axis=1)
        by_rank = paddle.where(ascending < infinite, partners[:, :most], paddle.zeros([1], dtype="float32"))
        weights = paddle.put_along_axis(counts.astype("float32"), order, by_rank * -1.0, axis=1, reduce="add")
        triplets = by_rank.sum(axis=1, keepdim=True)
        weights = weights / paddle.clip(triplets, min=1.0) / rows
        active = (triplets > 0).astype("float32").sum()
        return (weights * similarity).sum() + self.margin * active / rows, weights


class MultiSimilarity(PairLoss):
    """Multi-similarity (Wang et al., CVPR 2019, eq. 10 and 15, alpha, beta, lambda as `base`, epsilon as `mining`).

    A negative counts when it is more similar than the least similar positive less `mining`, a positive when it is less
    similar than the most similar negative plus `mining`; a query without both kinds gives nothing, as in their code.
    """

    def __init__(self, alpha: float, beta: float, base: float, mining: float, epsilon: float | None = None) -> None:
        super().__init__(epsilon)
        self.alpha, self.beta, self.base, self.mining = alpha, beta, base, mining

    def weigh(
        self, similarity: paddle.Tensor, positive: paddle.Tensor, negative: paddle.Tensor
    ) -> tuple[paddle.Tensor, paddle.Tensor]:
        infinite = paddle.full([1], float("inf"), dtype="float32")
        least = paddle.where(positive, similarity, infinite).min(axis=1, keepdim=True)
        most = paddle.where(negative, similarity, -infinite).max(axis=1, keepdim=True)
        positive = paddle.logical_and(positive, similarity < most + self.mining)
        negative = paddle.logical_and(negative, similarity > least - self.mining)
        both = paddle.logical_and(positive.any(axis=1, keepdim=True), negative.any(axis=1, keepdim=True))
        rows = similarity.shape[0]
        loss, weights = paddle.zeros([1]), paddle.zeros_like(similarity)
        for mask, scale in ((positive, -self.alpha), (negative, self.beta)):
            exponent = paddle.where(paddle.logical_and(mask, both), scale * (similarity - self.base), -infinite)
            # log(1 + sum(exp)), with the largest exponent (or 0) taken out.
            top = paddle.clip(exponent.max(axis=1, keepdim=True), min=0.0)
            terms = paddle.exp(exponent - top)
            total = terms.sum(axis=1, keepdim=True) + paddle.exp(-top)
            loss = loss + (paddle.log(total) + top).sum() / abs(scale)
            weights = weights + (1.0 if scale > 0 else -1.0) * terms / total
        return loss.reshape([]) / rows, weights / rows


def keys_at_a_time(queries: int, on_gpu: bool) -> int:
    """How many keys a batch of so many queries is held against at once."""
    return max(PIECE // queries, CHUNK) if on_gpu else CHUNK


def labelled(key_labels: paddle.Tensor, query_labels: paddle.Tensor) -> paddle.Tensor:
    """The places, int64 `(n,)`, of the keys whose label stands among the queries'."""
    wanted = paddle.unique(query_labels)
    nearest = paddle.clip(paddle.searchsorted(wanted, key_labels), max=wanted.shape[0] - 1)
    return paddle.nonzero(wanted.gather(nearest) == key_labels).reshape([-1])
