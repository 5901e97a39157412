"""A smooth stand-in for recall@k (Patel et al., "Recall@k Surrogate Loss", CVPR 2022, arXiv 2108.11179)."""

from __future__ import annotations

from collections.abc import Sequence

import paddle
from paddle.nn import functional

from .pair_losses import PairLoss


class RecallSurrogate(PairLoss):
    """Per query, 1 less the mean over k of the share of its positives that are among the k nearest (eq. 3 and 6), both
    steps, "nearer than the positive" and "among the k first", smoothed by a sigmoid; 0 without positives; the mean over
    queries.

    temperature: of similarities; rank_temperature: of ranks. The cost grows with the positives that a query has.
    """

    def __init__(
        self, ks: Sequence[int], temperature: float, rank_temperature: float, epsilon: float | None = None
    ) -> None:
        super().__init__(epsilon)
        self.ks, self.temperature, self.rank_temperature = tuple(ks), temperature, rank_temperature

    def weigh(
        self, similarity: paddle.Tensor, positive: paddle.Tensor, negative: paddle.Tensor
    ) -> tuple[paddle.Tensor, paddle.Tensor]:
        """One positive of every query at a time, so that nothing of three dimensions is held."""
        rows = similarity.shape[0]
        counts = positive.astype("int64").sum(axis=1, keepdim=True)
        most = int(counts.max())
        loss, weights = (counts > 0).astype("float32").sum(), paddle.zeros_like(similarity)
        if most == 0:
            return loss, weights
        others = paddle.logical_or(positive, negative).astype("float32")
        order = paddle.argsort(positive.astype("int64"), axis=1, descending=True, stable=True)[:, :most]
        share = 1.0 / (paddle.clip(counts, min=1).astype("float32") * len(self.ks))
        for place in range(most):
            column = order[:, place : place + 1]
            own = paddle.take_along_axis(similarity, column, axis=1)
            smooth = functional.sigmoid((similarity - own) / self.temperature) * others
            itself = paddle.take_along_axis(smooth, column, axis=1)
            ahead = smooth.sum(axis=1, keepdim=True) - itself
            valid = (counts > place).astype("float32") * share
            by_rank = paddle.zeros_like(ahead)
            for k in self.ks:
                among = functional.sigmoid((k - 1 - ahead) / self.rank_temperature)
                loss = loss - (valid * among).sum()
                by_rank = by_rank + valid * among * (1 - among) / self.rank_temperature
            slope = by_rank * smooth * (1 - smooth) / self.temperature
            slope = paddle.put_along_axis(slope, column, paddle.zeros_like(own), axis=1)
            by_own = -slope.sum(axis=1, keepdim=True)
            weights = weights + paddle.put_along_axis(slope, column, by_own, axis=1)
        return loss / rows, weights / rows
