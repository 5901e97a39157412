"""The training loss: a pair loss over the batch and, with a memory, over the past batches."""

from __future__ import annotations

from typing import Any

import paddle
from paddle import nn
from paddle.autograd import PyLayer

from ...runtimes.core.errors import InputError
from ..config.loss import (
    ContrastiveOptions,
    MemoryOptions,
    MultiSimilarityOptions,
    PairOptions,
    PairwiseCosfaceOptions,
    RecallSurrogateOptions,
    SupConOptions,
    TripletAngularOptions,
    TripletMarginOptions,
)
from ..distributed import gather_labels, gather_with_gradient
from .memory import CrossBatchMemory
from .mined_losses import PairwiseCosface, SupervisedContrastive, TripletAngularMargin
from .pair_losses import Contrastive, MultiSimilarity, PairLoss, TripletMargin
from .recall_surrogate import RecallSurrogate


class _Known(PyLayer):
    """A value whose gradient by `x` is known already."""

    @staticmethod
    def forward(ctx: Any, x: paddle.Tensor, value: paddle.Tensor, gradient: paddle.Tensor) -> paddle.Tensor:
        ctx.save_for_backward(gradient)
        return value.clone()

    @staticmethod
    def backward(ctx: Any, upstream: paddle.Tensor) -> tuple[paddle.Tensor, None, None]:
        (gradient,) = ctx.saved_tensor()
        return upstream * gradient, None, None


class EmbeddingLoss(nn.Layer):
    """`pair_loss` of the batch with itself, plus `xbm_weight` times that against the memory once it has started.

    The memory starts after `start_iter` calls. The batch is enqueued first, so that its pairs are in the memory too;
    each query then leaves out exactly the slot that holds itself. Over several processes the batch is that of all of
    them, and so is the memory, the same in each. match_moments: the memory is brought to the batch's mean and spread
    first. All in float32, whatever the autocast.
    """

    def __init__(
        self,
        pair_loss: PairLoss,
        normalize_feature: bool = True,
        memory: CrossBatchMemory | None = None,
        xbm_weight: float = 1.0,
        start_iter: int = 0,
        match_moments: bool = False,
    ) -> None:
        super().__init__()
        self.pair_loss, self.normalize_feature = pair_loss, normalize_feature
        self.xbm = memory
        self.xbm_weight, self.start_iter, self.match_moments = xbm_weight, start_iter, match_moments
        self.iteration = 0

    def forward(self, feats: paddle.Tensor, labels: paddle.Tensor) -> paddle.Tensor:
        """feats `(B, D)` of any float type, labels int64 `(B,)` or `(B, 1)`; float32 scalar."""
        with paddle.amp.auto_cast(enable=False):
            feats = gather_with_gradient(feats.astype("float32"))
            labels = gather_labels(labels.reshape([-1]))
            if self.normalize_feature:
                feats = nn.functional.normalize(feats, p=2, axis=1)
            self.iteration += 1
            with paddle.no_grad():
                value, gradient = self.pair_loss.batch(feats, labels)
                if self.xbm is not None and self.iteration > self.start_iter:
                    slots = self.xbm.enqueue(feats, labels)
                    keys, key_labels = self.xbm.get()
                    if self.match_moments:
                        keys = self.xbm.matched(feats, self.normalize_feature)
                    more, by_memory = self.pair_loss.memory(feats, labels, keys, key_labels, slots)
                    value = value + self.xbm_weight * more
                    gradient = gradient + self.xbm_weight * by_memory
            return _Known.apply(feats, value, gradient)


def build_pair_loss(options: PairOptions) -> PairLoss:
    """The pair loss of these options."""
    if isinstance(options, ContrastiveOptions):
        return Contrastive(options.margin, options.epsilon)
    if isinstance(options, TripletMarginOptions):
        return TripletMargin(options.margin, options.epsilon)
    if isinstance(options, MultiSimilarityOptions):
        return MultiSimilarity(options.alpha, options.beta, options.base, options.mining, options.epsilon)
    if isinstance(options, TripletAngularOptions):
        return TripletAngularMargin(options.margin, options.absolute, options.epsilon)
    if isinstance(options, SupConOptions):
        return SupervisedContrastive(options.temperature, options.base_temperature, options.epsilon)
    if isinstance(options, RecallSurrogateOptions):
        return RecallSurrogate(options.ks, options.temperature, options.rank_temperature, options.epsilon)
    assert isinstance(options, PairwiseCosfaceOptions)
    return PairwiseCosface(options.margin, options.gamma, options.epsilon)


def build_loss(options: PairOptions, dim: int, images: int) -> EmbeddingLoss:
    """A pair loss of the config. dim: of what it is given; images: the training list's length, for a memory given as a
    share of it. InputError when the config says another dim.
    """
    given = options.embedding_size or getattr(options, "feat_dim", None)
    if given not in (None, dim):
        raise InputError(f"Loss.Train: embedding_size {given}, but {dim} dimensions come in")
    pair_loss = build_pair_loss(options)
    if not isinstance(options, MemoryOptions):
        return EmbeddingLoss(pair_loss, options.normalize_feature)
    memory = CrossBatchMemory(options.size(images), dim)
    return EmbeddingLoss(
        pair_loss, options.normalize_feature, memory, options.xbm_weight, options.start_iter, options.xbn
    )
