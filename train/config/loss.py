"""The config's `Loss`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from ...runtimes.core.config import Frozen
from .arch import Classes
from .base import Dim, Images, NonNegative, Rate


class LossOptions(Frozen):
    """What every loss has. feature_from: what it is of: embeddings, or the backbone's features before the neck."""

    weight: float = 1.0
    feature_from: Literal["features", "backbone"] = "features"


class PairOptions(LossOptions):
    """What every pair loss has. embedding_size: checked against the network where it is given.

    epsilon: without it a sample is left out by its place, and only itself; with it every positive with
    `s >= 1 - epsilon` is left out, near-duplicates too, as PaddleClas does. prefixes: the loss is also that of each
    embedding's first so many numbers, so that these serve as a smaller embedding (Matryoshka, Kusupati et al., arXiv
    2205.13147); the mean of all is taken.
    """

    embedding_size: Dim | None = None
    normalize_feature: bool = True
    prefixes: Annotated[tuple[Dim, ...], Field(max_length=16)] = ()
    epsilon: Annotated[float, Field(ge=0, lt=1)] | None = None

    @model_validator(mode="after")
    def different_prefixes(self) -> PairOptions:
        if len(set(self.prefixes)) < len(self.prefixes):
            raise ValueError(f"prefixes: expected different numbers, got {', '.join(map(str, self.prefixes))}")
        return self


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


class TripletAngularOptions(PairOptions):
    """`TripletAngularMarginLoss`."""

    margin: Annotated[float, Field(ge=0)] = 0.5
    reduction: Literal["mean"] = "mean"
    add_absolute: bool = False
    absolute_loss_weight: float = 1.0
    ap_value: float = 0.9
    an_value: float = 0.5

    @property
    def absolute(self) -> tuple[float, float, float] | None:
        """Weight, ap and an of what is added, if anything."""
        return (self.absolute_loss_weight, self.ap_value, self.an_value) if self.add_absolute else None


class SupConOptions(PairOptions):
    """`SupConLoss`. views is accepted and not needed: labels tell which images belong together."""

    views: Images = 16
    temperature: Rate = 0.07
    base_temperature: Rate = 0.07
    contrast_mode: Literal["all"] = "all"


class PairwiseCosfaceOptions(PairOptions):
    """`PairwiseCosface`."""

    margin: float
    gamma: Rate


class RecallSurrogateOptions(PairOptions):
    """`RecallSurrogateLoss`: smoothed recall@k, the mean over `ks`. temperature: of similarities; rank_temperature: of
    ranks.
    """

    ks: Annotated[tuple[Images, ...], Field(min_length=1, max_length=16)] = (1, 2, 4, 8, 16)
    temperature: Rate = 0.01
    rank_temperature: Rate = 1.0


class MemoryOptions(PairOptions):
    """What a `_XBM` loss adds: the memory's size in embeddings or as a share of the training list, when it starts,
    and what it weighs. xbn: the memory is brought to the batch's mean and spread before it is compared with it.
    """

    xbm_size: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    xbm_ratio: Annotated[float, Field(gt=0, le=1)] | None = None
    xbm_weight: float = 1.0
    start_iter: NonNegative = 0
    xbn: bool = False

    @model_validator(mode="after")
    def one_size(self) -> MemoryOptions:
        if (self.xbm_size is None) == (self.xbm_ratio is None):
            raise ValueError("expected one of xbm_size (embeddings) and xbm_ratio (share of the training list)")
        if self.xbn and self.epsilon is not None:
            raise ValueError(
                "xbn moves a query's own entry away from it, by which epsilon would find it: leave out one"
            )
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


class TripletAngularMemoryOptions(TripletAngularOptions, MemoryOptions):
    """`TripletAngularMarginLoss_XBM`. feat_dim: PaddleClas's name of embedding_size here."""

    feat_dim: Dim | None = None

    @model_validator(mode="after")
    def one_width(self) -> TripletAngularMemoryOptions:
        if self.feat_dim is not None and self.embedding_size not in (None, self.feat_dim):
            raise ValueError(f"feat_dim {self.feat_dim} and embedding_size {self.embedding_size} are one thing")
        return self


class SupConMemoryOptions(SupConOptions, MemoryOptions):
    """`SupConLoss_XBM`."""


class PairwiseCosfaceMemoryOptions(PairwiseCosfaceOptions, MemoryOptions):
    """`PairwiseCosface_XBM`."""


class RecallSurrogateMemoryOptions(RecallSurrogateOptions, MemoryOptions):
    """`RecallSurrogateLoss_XBM`."""


class CrossEntropyOptions(LossOptions):
    """`CELoss`, of the head's logits. epsilon: label smoothing."""

    epsilon: Annotated[float, Field(ge=0, le=1)] | None = None
    reduction: Literal["mean"] = "mean"

    @property
    def smoothing(self) -> float | None:
        """The share; None for none, which the reference takes 0 and 1 for too."""
        return self.epsilon if self.epsilon is not None and 0 < self.epsilon < 1 else None


class HardTripletOptions(LossOptions):
    """`TripletLossV2`."""

    margin: Annotated[float, Field(ge=0)] = 0.5
    normalize_feature: bool = True


class CenterOptions(LossOptions):
    """`CenterLoss`."""

    num_classes: Classes
    feat_dim: Dim


class LossEntry(Frozen):
    """One loss of a list; exactly one key."""

    CELoss: CrossEntropyOptions | None = None
    TripletLossV2: HardTripletOptions | None = None
    CenterLoss: CenterOptions | None = None
    ContrastiveLoss: ContrastiveOptions | None = None
    ContrastiveLoss_XBM: ContrastiveMemoryOptions | None = None
    TripletMarginLoss: TripletMarginOptions | None = None
    TripletMarginLoss_XBM: TripletMarginMemoryOptions | None = None
    MultiSimilarityLoss: MultiSimilarityOptions | None = None
    MultiSimilarityLoss_XBM: MultiSimilarityMemoryOptions | None = None
    TripletAngularMarginLoss: TripletAngularOptions | None = None
    TripletAngularMarginLoss_XBM: TripletAngularMemoryOptions | None = None
    SupConLoss: SupConOptions | None = None
    SupConLoss_XBM: SupConMemoryOptions | None = None
    PairwiseCosface: PairwiseCosfaceOptions | None = None
    PairwiseCosface_XBM: PairwiseCosfaceMemoryOptions | None = None
    RecallSurrogateLoss: RecallSurrogateOptions | None = None
    RecallSurrogateLoss_XBM: RecallSurrogateMemoryOptions | None = None

    @model_validator(mode="after")
    def exactly_one(self) -> LossEntry:
        if len(self._given()) != 1:
            raise ValueError(f"expected one loss per list entry: {', '.join(type(self).model_fields)}")
        return self

    def _given(self) -> list[tuple[str, LossOptions]]:
        entries = ((name, getattr(self, name)) for name in type(self).model_fields)
        return [(name, options) for name, options in entries if options is not None]

    @property
    def name(self) -> str:
        """The loss's key."""
        return self._given()[0][0]

    @property
    def options(self) -> LossOptions:
        """The loss's options."""
        return self._given()[0][1]


class LossSection(Frozen):
    """`Loss`. Train: their weighted sum."""

    Train: Annotated[list[LossEntry], Field(min_length=1, max_length=16)]
    Eval: tuple[LossEntry, ...] = ()

    @model_validator(mode="after")
    def one_memory(self) -> LossSection:
        memories = [entry.name for entry in self.Train if isinstance(entry.options, MemoryOptions)]
        if len(memories) > 1:
            raise ValueError(f"expected one loss with a memory at most, got {' and '.join(memories)}")
        return self

    @property
    def memory(self) -> MemoryOptions | None:
        """The options of the loss with a memory, if there is one."""
        return next((entry.options for entry in self.Train if isinstance(entry.options, MemoryOptions)), None)

    @property
    def name(self) -> str:
        """The losses' keys."""
        return " + ".join(entry.name for entry in self.Train)
