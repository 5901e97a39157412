"""Pair losses whose derivative by the similarities is left to autograd, since each picks its few pairs first."""

from __future__ import annotations

from abc import abstractmethod

import paddle
from paddle.nn import functional

from .pair_losses import PairLoss

FAR = 1e4  # stands for an infinite similarity where autograd would make NaN of one


class MinedLoss(PairLoss):
    """A pair loss by its value alone."""

    @abstractmethod
    def value(self, similarity: paddle.Tensor, positive: paddle.Tensor, negative: paddle.Tensor) -> paddle.Tensor:
        """The loss, float32 scalar, differentiable by similarities `(B, M)`; masks bool `(B, M)`."""

    def weigh(
        self, similarity: paddle.Tensor, positive: paddle.Tensor, negative: paddle.Tensor
    ) -> tuple[paddle.Tensor, paddle.Tensor]:
        with paddle.enable_grad():
            leaf = similarity.detach()
            leaf.stop_gradient = False
            value = self.value(leaf, positive, negative)
            (gradient,) = paddle.grad(value, leaf)
        return value.detach(), gradient


class TripletAngularMargin(MinedLoss):
    """Per query, `s_n - s_p + margin` where above 0, of the least similar positive and the most similar negative, 0
    without both; the mean over queries (PP-ShiTuV2).

    absolute: what is added, `(weight, ap, an)`: weight times the means of how far `s_p` is below ap and `s_n` above an.
    PaddleClas adds a constant 1 for each `s_n` that is below an, which changes no gradient; this adds 0.
    """

    def __init__(
        self, margin: float, absolute: tuple[float, float, float] | None = None, epsilon: float | None = None
    ) -> None:
        super().__init__(epsilon)
        self.margin, self.absolute = margin, absolute

    def value(self, similarity: paddle.Tensor, positive: paddle.Tensor, negative: paddle.Tensor) -> paddle.Tensor:
        least = paddle.where(positive, similarity, paddle.full([1], FAR)).min(axis=1)
        most = paddle.where(negative, similarity, paddle.full([1], -FAR)).max(axis=1)
        both = paddle.logical_and(positive.any(axis=1), negative.any(axis=1)).astype("float32")
        loss = functional.relu(most - least + self.margin)
        if self.absolute is not None:
            weight, ap, an = self.absolute
            loss = loss + weight * (functional.relu(ap - least) + functional.relu(most - an))
        return (both * loss).mean()


class SupervisedContrastive(MinedLoss):
    """Per query, the mean over its positives of `-log softmax(s / temperature)` among all other keys, 0 without any;
    the mean over queries, times temperature over base_temperature (Khosla et al., arXiv 2004.11362, eq. 2).
    """

    def __init__(self, temperature: float, base_temperature: float, epsilon: float | None = None) -> None:
        super().__init__(epsilon)
        self.temperature, self.scale = temperature, temperature / base_temperature

    def value(self, similarity: paddle.Tensor, positive: paddle.Tensor, negative: paddle.Tensor) -> paddle.Tensor:
        logits = similarity / self.temperature
        others = paddle.where(paddle.logical_or(positive, negative), logits, paddle.full([1], -FAR))
        log_share = logits - paddle.logsumexp(others, axis=1, keepdim=True)
        chosen = positive.astype("float32")
        count = chosen.sum(axis=1)
        return -self.scale * ((chosen * log_share).sum(axis=1) / paddle.clip(count, min=1.0)).mean()


class PairwiseCosface(MinedLoss):
    """Per query, `softplus(logsumexp(-gamma s_p) + logsumexp(gamma (s_n + margin)))`, 0 without both kinds; the mean
    over queries (Sun et al., arXiv 2002.10857, eq. 1).
    """

    def __init__(self, margin: float, gamma: float, epsilon: float | None = None) -> None:
        super().__init__(epsilon)
        self.margin, self.gamma = margin, gamma

    def value(self, similarity: paddle.Tensor, positive: paddle.Tensor, negative: paddle.Tensor) -> paddle.Tensor:
        low = paddle.full([1], -FAR * max(self.gamma, 1.0))
        near = paddle.logsumexp(paddle.where(positive, -self.gamma * similarity, low), axis=1)
        far = paddle.logsumexp(paddle.where(negative, self.gamma * (similarity + self.margin), low), axis=1)
        both = paddle.logical_and(positive.any(axis=1), negative.any(axis=1)).astype("float32")
        return (both * functional.softplus(near + far)).mean()
