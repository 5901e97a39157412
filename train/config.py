"""The training config: the reference's sections and keys as typed models, unknown keys refused."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from ..runtimes.config import apply_overrides, read_yaml, validate
from ..runtimes.spec import Backend, Frozen

Positive = Annotated[int, Field(ge=1)]
NonNegative = Annotated[int, Field(ge=0)]
Rate = Annotated[float, Field(gt=0)]


class GlobalSection(Frozen):
    """`Global`. seed: of weights, sampling and augmentation."""

    checkpoints: None = None  # resuming is not built yet; a value is refused
    pretrained_model: Path | None = None
    output_dir: Path = Path("./output")
    device: Literal["cpu", "gpu"] = "gpu"
    save_interval: Positive = 1
    eval_during_train: bool = True
    eval_interval: Positive = 1
    start_eval_epoch: NonNegative = 0
    epochs: Positive
    iter_per_epoch: Positive
    print_batch_step: Positive = 20
    use_visualdl: Literal[False] = False
    eval_mode: Literal["retrieval"] = "retrieval"
    retrieval_feature_from: Literal["features"] = "features"
    re_ranking: Literal[False] = False
    image_shape: tuple[Literal[3], Positive, Positive]
    save_inference_dir: Path = Path("./inference")
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0


class BackboneSection(Frozen):
    """`Arch.Backbone`. pretrained: a .pdparams path or URL of backbone weights."""

    name: str
    pretrained: bool | str = False
    stem_act: Literal["relu"] | None = "relu"


class StopLayer(Frozen):
    """`Arch.BackboneStopLayer`: features are taken after the flatten."""

    name: Literal["flatten"]


class Initializer(Frozen):
    """An initializer by Paddle's name."""

    name: Literal["KaimingNormal", "XavierNormal", "Normal", "Constant"]
    fan_in: float | None = None
    negative_slope: float = 0.0
    nonlinearity: str = "relu"
    mean: float = 0.0
    std: float = 1.0
    value: float = 0.0


class ParameterAttr(Frozen):
    """`weight_attr`, `bias_attr`."""

    initializer: Initializer


class NeckSection(Frozen):
    """`Arch.Neck`: a linear layer from the backbone's `embedding_size` features to `class_num` dimensions."""

    name: Literal["FC"]
    embedding_size: Positive
    class_num: Positive
    weight_attr: ParameterAttr | None = None
    bias_attr: ParameterAttr | None = None


class ArchSection(Frozen):
    """`Arch`."""

    name: Literal["RecModel"]
    infer_output_key: Literal["features"] = "features"
    infer_add_softmax: Literal[False] = False
    Backbone: BackboneSection
    BackboneStopLayer: StopLayer = StopLayer(name="flatten")
    Neck: NeckSection


class ContrastiveOptions(Frozen):
    """`ContrastiveLoss`. epsilon is accepted and not used: a sample is left out by what it is, not by `s < 1 - eps`."""

    weight: float = 1.0
    margin: float = 0.5
    embedding_size: Positive
    normalize_feature: bool = True
    epsilon: float = 1e-5
    feature_from: Literal["features"] = "features"


class XbmOptions(ContrastiveOptions):
    """`ContrastiveLoss_XBM`."""

    xbm_size: Positive
    xbm_weight: float = 1.0
    start_iter: NonNegative = 0


class LossEntry(Frozen):
    """One loss of a list; exactly one key."""

    ContrastiveLoss: ContrastiveOptions | None = None
    ContrastiveLoss_XBM: XbmOptions | None = None

    @model_validator(mode="after")
    def exactly_one(self) -> LossEntry:
        if (self.ContrastiveLoss is None) == (self.ContrastiveLoss_XBM is None):
            raise ValueError("expected one loss, ContrastiveLoss or ContrastiveLoss_XBM, per list entry")
        return self


class LossSection(Frozen):
    """`Loss`."""

    Train: Annotated[list[LossEntry], Field(min_length=1, max_length=1)]
    Eval: tuple[LossEntry, ...] = ()


class ConstantRate(Frozen):
    """A constant learning rate."""

    name: Literal["Constant"]
    learning_rate: Rate


class CosineRate(Frozen):
    """Half a cosine from `learning_rate` to `eta_min`, per iteration, after a linear warm-up."""

    name: Literal["Cosine"]
    learning_rate: Rate
    eta_min: Annotated[float, Field(ge=0)] = 0.0
    warmup_epoch: NonNegative = 0
    warmup_start_lr: Annotated[float, Field(ge=0)] = 0.0
    by_epoch: Literal[False] = False


class PlateauRate(Frozen):
    """Times `factor` when the metric has not improved for `patience` evaluations."""

    name: Literal["ReduceOnPlateau"]
    learning_rate: Rate
    mode: Literal["min", "max"] = "max"
    factor: Annotated[float, Field(gt=0, lt=1)] = 0.1
    patience: NonNegative = 10
    threshold: float = 1e-4
    threshold_mode: Literal["rel", "abs"] = "rel"
    cooldown: NonNegative = 0
    min_lr: Annotated[float, Field(ge=0)] = 0.0
    epsilon: Annotated[float, Field(ge=0)] = 1e-8
    by_epoch: Literal[True] = True


class Regularizer(Frozen):
    """L2 weight decay."""

    name: Literal["L2"]
    coeff: Annotated[float, Field(ge=0)]


class OptimizerSection(Frozen):
    """`Optimizer`."""

    name: Literal["Adam", "AdamW", "Momentum"]
    lr: Annotated[ConstantRate | CosineRate | PlateauRate, Field(discriminator="name")]
    regularizer: Regularizer | None = None
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9

    @model_validator(mode="after")
    def momentum_is_used(self) -> OptimizerSection:
        if self.name != "Momentum" and "momentum" in self.model_fields_set:
            raise ValueError(f"momentum is for Momentum, {self.name} has none")
        return self


class Dataset(Frozen):
    """A list file and how its images become tensors. backend: who resizes where an operation does not say.

    relabel changes nothing here: labels are compared, never used as indices.
    """

    name: Literal["VeriWild", "SOP"] = "SOP"
    image_root: Path
    cls_label_path: Path
    backend: Backend = "cv2"
    relabel: bool = False
    transform_ops: list[Any]


class TrainSampler(Frozen):
    """Identity-balanced batches: `batch_size / num_instances` identities, `num_instances` images of each.

    max_iters and drop_last change nothing here: batches never end, and `Global.iter_per_epoch` cuts them into epochs.
    """

    name: Literal["DistributedRandomIdentitySampler"]
    batch_size: Annotated[int, Field(ge=2)]
    num_instances: Annotated[int, Field(ge=1)]
    drop_last: bool = False
    shuffle: Literal[True] = True
    max_iters: Positive | None = None

    @model_validator(mode="after")
    def whole_identities(self) -> TrainSampler:
        if self.batch_size % self.num_instances:
            raise ValueError(f"batch_size {self.batch_size} is no multiple of num_instances {self.num_instances}")
        return self


class EvalSampler(Frozen):
    """In list order."""

    name: Literal["DistributedBatchSampler"] = "DistributedBatchSampler"
    batch_size: Positive = 64
    drop_last: Literal[False] = False
    shuffle: Literal[False] = False


class Loader(Frozen):
    """num_workers: decoding threads. use_shared_memory is accepted and not needed by threads."""

    num_workers: NonNegative = 2
    use_shared_memory: bool = True


class TrainData(Frozen):
    """`DataLoader.Train`."""

    dataset: Dataset
    sampler: TrainSampler
    loader: Loader = Loader()


class EvalData(Frozen):
    """`DataLoader.Eval.Gallery` and `.Query`."""

    dataset: Dataset
    sampler: EvalSampler = EvalSampler()
    loader: Loader = Loader()


class EvalPair(Frozen):
    """`DataLoader.Eval`. Query defaults to the gallery."""

    Gallery: EvalData
    Query: EvalData | None = None


class DataSection(Frozen):
    """`DataLoader`."""

    Train: TrainData
    Eval: EvalPair


class RecallkOptions(Frozen):
    """recall@k for each k."""

    topk: Annotated[tuple[Positive, ...], Field(min_length=1)] = (1, 5)


class NoOptions(Frozen):
    """An empty mapping."""


class MetricEntry(Frozen):
    """One metric of the list."""

    Recallk: RecallkOptions | None = None
    mAP: NoOptions | None = None


class MetricSection(Frozen):
    """`Metric`."""

    Eval: list[MetricEntry]

    @property
    def topk(self) -> tuple[int, ...]:
        """All k of all Recallk entries; 1 and 5 when there is none."""
        return tuple(k for entry in self.Eval if entry.Recallk for k in entry.Recallk.topk) or (1, 5)


class TrainConfig(Frozen):
    """The whole file."""

    Global: GlobalSection
    Arch: ArchSection
    Loss: LossSection
    Optimizer: OptimizerSection
    DataLoader: DataSection
    Metric: MetricSection = MetricSection(Eval=[])

    @model_validator(mode="after")
    def plateau_has_a_metric(self) -> TrainConfig:
        if self.Optimizer.lr.name == "ReduceOnPlateau" and not self.Global.eval_during_train:
            raise ValueError("Optimizer.lr ReduceOnPlateau needs Global.eval_during_train: True")
        return self

    @model_validator(mode="after")
    def sizes_agree(self) -> TrainConfig:
        entry = self.Loss.Train[0]
        options = entry.ContrastiveLoss or entry.ContrastiveLoss_XBM
        assert options is not None
        if options.embedding_size != self.Arch.Neck.class_num:
            raise ValueError(
                f"Loss.Train embedding_size {options.embedding_size} is not Arch.Neck.class_num"
                f" {self.Arch.Neck.class_num}"
            )
        batch = self.DataLoader.Train.sampler.batch_size
        if entry.ContrastiveLoss_XBM and entry.ContrastiveLoss_XBM.xbm_size < batch:
            raise ValueError(
                f"xbm_size {entry.ContrastiveLoss_XBM.xbm_size} is smaller than the batch of {batch}: raise xbm_size"
            )
        return self


def load_config(path: Path, overrides: Iterable[str] = ()) -> TrainConfig:
    """Reads, overrides and checks a config. InputError with one line for the first fault."""
    return validate(TrainConfig, apply_overrides(read_yaml(path), overrides), f"config {path}")
