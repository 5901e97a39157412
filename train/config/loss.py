"""The config's `Loss`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from ...runtimes.core.config import Frozen
from .base import Dim, NonNegative, Rate


class PairOptions(Frozen):
    """What every pair loss has.

    epsilon: without it a sample is left out by its place, and only itself; with it every positive with
    `s >= 1 - epsilon` is left out, near-duplicates too, as PaddleClas does.
    """

    weight: float = 1.0
    embedding_size: Dim
    normalize_feature: bool = True
    epsilon: Annotated[float, Field(ge=0, lt=1)] | None = None
    feature_from: Literal["features"] = "features"


class ContrastiveOptions(PairOptions):
    """`ContrastiveLoss`."""

    margin: float = 0.5


class TripletMarginOptions(PairOptions):
    """`TripletMarginLoss`."""

    margin: Annotated[float, Field(ge=0)] = 0.1


class MultiSimilarityOptions(PairOptions):
    """`MultiSimilarityLoss`; the paper's alpha, beta, lambda (base) and epsilon (mining)."""

    alpha: Rate = 2.0
    beta: Rate = 50.0
    base: float = 0.5
    mining: float = 0.1


class MemoryOptions(PairOptions):
    """What a `_XBM` loss adds: the memory's size in embeddings or as a share of the training list, when it starts,
    and what it weighs.
    """

    xbm_size: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    xbm_ratio: Annotated[float, Field(gt=0, le=1)] | None = None
    xbm_weight: float = 1.0
    start_iter: NonNegative = 0

    @model_validator(mode="after")
    def one_size(self) -> MemoryOptions:
        if (self.xbm_size is None) == (self.xbm_ratio is None):
            raise ValueError("expected one of xbm_size (embeddings) and xbm_ratio (share of the training list)")
        return self

    def size(self, images: int) -> int:
        """The memory's size for a training list of this length."""
        return self.xbm_size or max(round((self.xbm_ratio or 0.0) * images), 1)


class ContrastiveMemoryOptions(ContrastiveOptions, MemoryOptions):
    """`ContrastiveLoss_XBM`."""


class TripletMarginMemoryOptions(TripletMarginOptions, MemoryOptions):
    """`TripletMarginLoss_XBM`."""


class MultiSimilarityMemoryOptions(MultiSimilarityOptions, MemoryOptions):
    """`MultiSimilarityLoss_XBM`."""


class LossEntry(Frozen):
    """One loss of a list; exactly one key."""

    ContrastiveLoss: ContrastiveOptions | None = None
    ContrastiveLoss_XBM: ContrastiveMemoryOptions | None = None
    TripletMarginLoss: TripletMarginOptions | None = None
    TripletMarginLoss_XBM: TripletMarginMemoryOptions | None = None
    MultiSimilarityLoss: MultiSimilarityOptions | None = None
    MultiSimilarityLoss_XBM: MultiSimilarityMemoryOptions | None = None

    @model_validator(mode="after")
    def exactly_one(self) -> LossEntry:
        if len(self._given()) != 1:
            raise ValueError(f"expected one loss per list entry: {', '.join(type(self).model_fields)}")
        return self

    def _given(self) -> list[tuple[str, PairOptions]]:
        entries = ((name, getattr(self, name)) for name in type(self).model_fields)
        return [(name, options) for name, options in entries if options is not None]

    @property
    def name(self) -> str:
        """The loss's key."""
        return self._given()[0][0]

    @property
    def options(self) -> PairOptions:
        """The loss's options."""
        return self._given()[0][1]


class LossSection(Frozen):
    """`Loss`."""

    Train: Annotated[list[LossEntry], Field(min_length=1, max_length=1)]
    Eval: tuple[LossEntry, ...] = ()
