"""The training config: the reference's sections and keys as typed models, unknown keys refused."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from ...runtimes.core.config import Frozen, apply_overrides, read_yaml, validate
from ...runtimes.core.errors import InputError
from ...runtimes.preprocess.ops import Side
from ...runtimes.preprocess.transform_ops import parse_transform_ops
from .arch import ArchSection
from .base import NonNegative, Positive, Rate
from .data import DataSection
from .loss import CrossEntropyOptions, LossSection
from .optimizer import OptimizerSection

logger = logging.getLogger(__name__)


class GlobalSection(Frozen):
    """`Global`.

    checkpoints: a checkpoint's prefix to resume from. pretrained_model: weights to begin with, a path, prefix or URL:
    what fits is taken and the rest told; with strict_load all must fit. iter_per_epoch: by default one pass over the
    training list. seed: of weights, sampling and augmentation.
    update_freq: batches whose gradients are summed up before the weights move. save_steps: `latest` is also saved every
    so many iterations. keep_epochs: how many `epoch_N` stay, all when absent. drift_interval: iterations between
    measurements of the feature drift, 0 for none.

    eval_mode: "classification" evaluates the class head's accuracy on classes it was trained on. feature_binarize: an
    evaluation by retrieval makes -1 and 1 of each number of an embedding first, by its sign or by the nearer of 0 and
    1; bundles keep the numbers. retrieval_feature_from: "backbone" where there is no neck, which is then the same.
    use_dali, to_static and infer_imgs are accepted and change nothing here.
    """

    checkpoints: Path | None = None
    pretrained_model: str | None = None
    strict_load: bool = False
    output_dir: Path = Path("./output")
    device: Literal["cpu", "gpu"] = "gpu"
    save_interval: Positive = 1
    save_steps: Positive | None = None
    keep_epochs: Positive | None = None
    eval_during_train: bool = True
    eval_interval: Positive = 1
    start_eval_epoch: NonNegative = 0
    epochs: Positive
    iter_per_epoch: Positive | None = None
    update_freq: Positive = 1
    print_batch_step: Positive = 20
    drift_interval: NonNegative = 100
    use_visualdl: bool = False
    eval_mode: Literal["retrieval", "classification"] = "retrieval"
    retrieval_feature_from: Literal["features", "backbone"] = "features"
    re_ranking: bool = False
    image_shape: tuple[Literal[3], Side, Side]
    save_inference_dir: Path = Path("./inference")
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    use_dali: bool = False
    to_static: bool = False
    feature_normalize: bool = True
    feature_binarize: Literal["round", "sign"] | None = None
    infer_imgs: str | None = None

    @model_validator(mode="after")
    def whole_updates(self) -> GlobalSection:
        if self.iter_per_epoch is not None and self.iter_per_epoch % self.update_freq:
            raise ValueError(f"iter_per_epoch {self.iter_per_epoch} is no multiple of update_freq {self.update_freq}")
        return self

    @model_validator(mode="after")
    def by_cosine(self) -> GlobalSection:
        if not self.feature_normalize and self.feature_binarize is None:
            raise ValueError("feature_normalize: False goes with feature_binarize: embeddings are compared by cosine")
        if self.feature_normalize and self.feature_binarize == "round":
            raise ValueError("feature_binarize: round is of numbers from 0 to 1: add feature_normalize: False")
        return self

    @property
    def iterations(self) -> int:
        """Of the whole training, once `iter_per_epoch` is known."""
        return self.epochs * self.epoch_length

    @property
    def epoch_length(self) -> int:
        """`iter_per_epoch`, once it is known."""
        assert self.iter_per_epoch is not None
        return self.iter_per_epoch


class AmpSection(Frozen):
    """`AMP`. level: O1 casts op by op, O2 the weights too (with float32 masters). It takes effect on a GPU only.

    use_fp16_test and use_promote are accepted and change nothing: evaluation is in float32.
    """

    use_amp: bool = True
    level: Literal["O1", "O2"] = "O1"
    dtype: Literal["float16", "bfloat16"] = "float16"
    scale_loss: Rate = 1.0
    use_dynamic_loss_scaling: bool = False
    use_fp16_test: bool = False
    use_promote: bool = False


class EmaSection(Frozen):
    """`EMA`: an exponential moving average of the weights, evaluated and saved beside them."""

    decay: Annotated[float, Field(gt=0, lt=1)] = 0.9999


Neighbours = Annotated[int, Field(ge=1, le=10_000)]


class RecallkOptions(Frozen):
    """recall@k for each k."""

    topk: Annotated[tuple[Neighbours, ...], Field(min_length=1, max_length=100)] = (1, 5)


class NoOptions(Frozen):
    """An empty mapping."""


class MetricEntry(Frozen):
    """One metric of the list. TopkAcc, of the class head, is for an evaluation as a classifier."""

    Recallk: RecallkOptions | None = None
    mAP: NoOptions | None = None
    TopkAcc: RecallkOptions | None = None


class MetricSection(Frozen):
    """`Metric`."""

    Train: tuple[MetricEntry, ...] = ()
    Eval: tuple[MetricEntry, ...] = ()

    @property
    def topk(self) -> tuple[int, ...]:
        """All k of all Recallk entries; 1 and 5 when there is none."""
        return tuple(k for entry in self.Eval if entry.Recallk for k in entry.Recallk.topk) or (1, 5)

    @property
    def top_classes(self) -> tuple[int, ...]:
        """All k of all TopkAcc entries; 1 and 5 when there is none."""
        return tuple(k for entry in self.Eval if entry.TopkAcc for k in entry.TopkAcc.topk) or (1, 5)


class TrainConfig(Frozen):
    """The whole file. Infer is accepted and changes nothing: `predict` has a config of its own."""

    Global: GlobalSection
    Arch: ArchSection
    Loss: LossSection
    Optimizer: OptimizerSection
    DataLoader: DataSection
    Metric: MetricSection = MetricSection()
    AMP: AmpSection | None = None
    EMA: EmaSection | None = None
    Infer: dict[str, Any] | None = None

    @model_validator(mode="before")
    @classmethod
    def one_evaluation_set(cls, data: Any) -> Any:
        """`DataLoader.Eval` with a data set of its own, which in PaddleClas is of a classifier unless it says
        otherwise, is the gallery.
        """
        match data:
            case {"DataLoader": {"Eval": {"dataset": _} as single} as loader, "Global": dict() as settings}:
                settings = {"eval_mode": "classification", **settings}
                return {**data, "DataLoader": {**loader, "Eval": {"Gallery": single}}, "Global": settings}
        return data

    @model_validator(mode="after")
    def classifier_is_whole(self) -> TrainConfig:
        if self.Global.eval_mode == "classification":
            if self.Arch.Head is None:
                raise ValueError("Global.eval_mode 'classification' needs Arch.Head, whose accuracy it is")
            if self.Arch.prefix is not None:
                raise ValueError("Global.eval_mode 'classification' with Arch.prefix: the head takes whole embeddings")
            if self.DataLoader.Eval.Query is not None:
                raise ValueError(
                    "Global.eval_mode 'classification' takes one data set, DataLoader.Eval.dataset, no Query"
                )
        return self

    @model_validator(mode="after")
    def features_of_the_backbone(self) -> TrainConfig:
        if self.Global.retrieval_feature_from == "backbone" and self.Arch.Neck is not None:
            raise ValueError(
                "Global.retrieval_feature_from 'backbone' with Arch.Neck: the embedding is the neck's here; leave out"
                " the neck to retrieve by the backbone's features"
            )
        return self

    @model_validator(mode="after")
    def plateau_has_a_metric(self) -> TrainConfig:
        rates = [one.lr.name for one in (self.Optimizer, *self.Optimizer.others)]
        if "ReduceOnPlateau" in rates and not self.Global.eval_during_train:
            raise ValueError("Optimizer.lr ReduceOnPlateau needs Global.eval_during_train: True")
        return self

    @model_validator(mode="after")
    def one_scaler(self) -> TrainConfig:
        if self.AMP is not None and self.AMP.use_amp and self.AMP.dtype == "float16" and self.Optimizer.others:
            raise ValueError("AMP float16 scales the loss for one optimizer: take dtype bfloat16, or one optimizer")
        return self

    @model_validator(mode="after")
    def sizes_agree(self) -> TrainConfig:
        neck = self.Arch.Neck
        for entry in self.Loss.Train:
            size = getattr(entry.options, "embedding_size", None)
            if neck is not None and size not in (None, neck.outputs) and entry.options.feature_from == "features":
                raise ValueError(f"Loss.Train embedding_size {size} is not Arch.Neck's {neck.outputs} dimensions")
            if isinstance(entry.options, CrossEntropyOptions) and self.Arch.Head is None:
                raise ValueError("Loss.Train CELoss needs logits: add Arch.Head")
        if self.Arch.Head is not None and not any(entry.CELoss for entry in self.Loss.Train):
            raise ValueError("Arch.Head is trained by CELoss alone: add it to Loss.Train, or leave out the head")
        memory, batch = self.Loss.memory, self.DataLoader.Train.sampler.batch_size
        if memory is not None and memory.xbm_size and memory.xbm_size < batch:
            raise ValueError(f"xbm_size {memory.xbm_size} is smaller than the batch of {batch}: raise xbm_size")
        return self


def load_config(path: Path, overrides: Iterable[str] = ()) -> TrainConfig:
    """Reads, overrides and checks a config. InputError with one line for the first fault.

    The images' size is what the evaluation's transforms give, as in PaddleClas; told where `Global.image_shape` is
    another.
    """
    config = validate(TrainConfig, apply_overrides(read_yaml(path), overrides), f"config {path}")
    dataset, settings = config.DataLoader.Eval.Gallery.dataset, config.Global
    try:
        found = parse_transform_ops(dataset.transform_ops, "", dataset.backend, "ignore").output_shape
    except InputError:  # told with its place where they are used
        return config
    if found == settings.image_shape:
        return config
    logger.warning(
        "config %s: Global.image_shape is %s, but the evaluation's transforms give %s: images have that size",
        path,
        list(settings.image_shape),
        list(found),
    )
    return config.model_copy(update={"Global": settings.model_copy(update={"image_shape": found})})
