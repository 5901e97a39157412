"""The training loss: a pair loss over the batch and, with a memory, over the past batches."""

from __future__ import annotations

from collections.abc import Sequence
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
from .memory import CrossBatchMemory, matched
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
    first. prefixes: the mean of this loss and of those of the embeddings' first so many numbers. All in float32,
    whatever the autocast.
    """

    def __init__(
        self,
        pair_loss: PairLoss,
        normalize_feature: bool = True,
        memory: CrossBatchMemory | None = None,
        xbm_weight: float = 1.0,
        start_iter: int = 0,
        match_moments: bool = False,
        prefixes: Sequence[int] = (),
    ) -> None:
        super().__init__()
        self.pair_loss, self.normalize_feature = pair_loss, normalize_feature
        self.xbm, self.prefixes = memory, tuple(prefixes)
        self.xbm_weight, self.start_iter, self.match_moments = xbm_weight, start_iter, match_moments
        self.iteration = 0

    def forward(self, feats: paddle.Tensor, labels: paddle.Tensor) -> paddle.Tensor:
        """feats `(B, D)` of any float type, labels int64 `(B,)` or `(B, 1)`; float32 scalar."""
        with paddle.amp.auto_cast(enable=False):
            feats = gather_with_gradient(feats.astype("float32"))
            labels = gather_labels(labels.reshape([-1]))
            feats = self._unit(feats)
            self.iteration += 1
            slots = None
            if self.xbm is not None and self.iteration > self.start_iter:
                slots = self.xbm.enqueue(feats, labels)
            losses = [self._loss(feats, labels, slots)]
            losses += [self._loss(self._unit(feats[:, :size]), labels, slots) for size in self.prefixes]
            return paddle.add_n(losses) / len(losses) if self.prefixes else losses[0]

    def _unit(self, feats: paddle.Tensor) -> paddle.Tensor:
        return nn.functional.normalize(feats, p=2, axis=1) if self.normalize_feature else feats

    def _loss(self, feats: paddle.Tensor, labels: paddle.Tensor, slots: paddle.Tensor | None) -> paddle.Tensor:
        """Of embeddings or prefixes `(B, d)`. slots: of the memory, that the batch is in, once there is one."""
        with paddle.no_grad():
            value, gradient = self.pair_loss.batch(feats, labels)
            if slots is not None:
                assert self.xbm is not None
                keys, key_labels = self.xbm.get()
                if feats.shape[1] < self.xbm.dim:
                    keys = self._unit(keys[:, : feats.shape[1]])
                if self.match_moments:
                    keys = matched(keys, feats, self.normalize_feature)
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
    if max(options.prefixes, default=0) >= dim:
        raise InputError(f"Loss.Train: prefixes: expected fewer than the {dim} dimensions, got {max(options.prefixes)}")
    pair_loss = build_pair_loss(options)
    if not isinstance(options, MemoryOptions):
        return EmbeddingLoss(pair_loss, options.normalize_feature, prefixes=options.prefixes)
    return EmbeddingLoss(
        pair_loss,
        options.normalize_feature,
        CrossBatchMemory(options.size(images), dim),
        options.xbm_weight,
        options.start_iter,
        options.xbn,
        options.prefixes,
    )
