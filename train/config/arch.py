"""The config's `Arch`: backbone, neck and class head."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from ...runtimes.core.config import Frozen
from .base import Dim


def _text_false(value: object) -> object:
    """PaddleClas's configs write "false" as text now and then."""
    return False if isinstance(value, str) and value.lower() == "false" else value


Classes = Annotated[int, Field(ge=2, le=10_000_000)]


class BackboneSection(Frozen):
    """`Arch.Backbone`. pretrained: True for the weights of `backbones.pretrained`'s table (use_ssld: PaddleClas's by
    distillation), or a path or URL of backbone weights. class_expand: width of PP-LCNetV2's features. class_num: the
    network's own last linear layer, of so many outputs, is kept, and they are the features.

    freeze_norm: the backbone's batch norms keep the statistics that they begin with, which is better for a pretrained
    network in small batches of few classes; their scales and shifts are trained.
    """

    name: str
    pretrained: bool | str = False
    use_ssld: bool = False
    stem_act: Literal["relu"] | None = "relu"
    class_expand: Dim | None = None
    class_num: Dim | None = None
    freeze_norm: bool = False

    @property
    def options(self) -> dict[str, object]:
        """Those that were given, for the network."""
        given: dict[str, object] = {"stem_act": self.stem_act} if "stem_act" in self.model_fields_set else {}
        numbers = {"class_expand": self.class_expand, "class_num": self.class_num}
        return given | {name: value for name, value in numbers.items() if value is not None}


class StopLayer(Frozen):
    """`Arch.BackboneStopLayer`: features are taken after the pooling, flat. output_dim is accepted and not needed."""

    name: Literal["flatten", "avg_pool"]
    output_dim: Dim | None = None


class Initializer(Frozen):
    """An initializer by Paddle's name."""

    name: Literal["KaimingNormal", "KaimingUniform", "XavierNormal", "Normal", "Constant"]
    fan_in: float | None = None
    negative_slope: float = 0.0
    nonlinearity: str = "relu"
    mean: float = 0.0
    std: float = 1.0
    value: float = 0.0


class ParameterAttr(Frozen):
    """`weight_attr`, `bias_attr`. learning_rate: what the optimizer's is multiplied by."""

    initializer: Initializer
    learning_rate: Annotated[float, Field(ge=0)] = 1.0


class FCNeck(Frozen):
    """A linear layer from the backbone's `embedding_size` features to `class_num` dimensions."""

    name: Literal["FC"]
    embedding_size: Dim
    class_num: Dim
    weight_attr: ParameterAttr | None = None
    bias_attr: ParameterAttr | Literal[False] | None = None

    @property
    def inputs(self) -> int:
        """Features that it takes."""
        return self.embedding_size

    @property
    def outputs(self) -> int:
        """Dimensions that it gives."""
        return self.class_num


class BatchNormNeck(Frozen):
    """`BNNeck` (Luo et al., arXiv 1903.07071): a batch norm of the features."""

    name: Literal["BNNeck"]
    num_features: Dim
    weight_attr: ParameterAttr | None = None
    bias_attr: ParameterAttr | None = None

    @property
    def inputs(self) -> int:
        """Features that it takes."""
        return self.num_features

    outputs = inputs


class VehicleNeck(Frozen):
    """A 1x1 convolution of the pooled features, which is a linear layer under other names."""

    name: Literal["VehicleNeck"]
    in_channels: Dim
    out_channels: Dim

    @property
    def inputs(self) -> int:
        """Features that it takes."""
        return self.in_channels

    @property
    def outputs(self) -> int:
        """Dimensions that it gives."""
        return self.out_channels


class Head(Frozen):
    """What every class head has. embedding_size: of the embedding that it takes; class_num: of the training list."""

    embedding_size: Dim
    class_num: Classes


class FCHead(Head):
    """Logits by a linear layer."""

    name: Literal["FC"]
    weight_attr: ParameterAttr | None = None
    bias_attr: ParameterAttr | Literal[False] | None = None


class ArcMarginHead(Head):
    """ArcFace (Deng et al., arXiv 1801.07698): `cos(angle + margin)`, times `scale`."""

    name: Literal["ArcMargin"]
    margin: Annotated[float, Field(ge=0, lt=3.1416)] = 0.5
    scale: Annotated[float, Field(gt=0)] = 80.0
    easy_margin: bool = False


class CosMarginHead(Head):
    """CosFace (Wang et al., arXiv 1801.09414): `cos(angle) - margin`, times `scale`."""

    name: Literal["CosMargin"]
    margin: Annotated[float, Field(ge=0)] = 0.35
    scale: Annotated[float, Field(gt=0)] = 64.0


class CircleMarginHead(Head):
    """Circle loss's logits (Sun et al., arXiv 2002.10857)."""

    name: Literal["CircleMargin"]
    margin: Annotated[float, Field(ge=0, le=1)]
    scale: Annotated[float, Field(gt=0)]


class AdaMarginHead(Head):
    """AdaFace (Kim et al., arXiv 2204.00964): a margin by the embedding's length, which stands for image quality."""

    name: Literal["AdaMargin"]
    m: Annotated[float, Field(ge=0)] = 0.4
    h: Annotated[float, Field(gt=0)] = 0.333
    s: Annotated[float, Field(gt=0)] = 64.0
    t_alpha: Annotated[float, Field(ge=0, le=1)] = 1.0


NeckSection = Annotated[FCNeck | BatchNormNeck | VehicleNeck, Field(discriminator="name")]
HeadSection = Annotated[
    FCHead | ArcMarginHead | CosMarginHead | CircleMarginHead | AdaMarginHead, Field(discriminator="name")
]


class ArchSection(Frozen):
    """`Arch`. Without a neck the embedding is the backbone's features. The head is for training alone.

    use_sync_bn: batch statistics over all GPUs. prefix: only the embedding's first so many numbers are given, for eval
    and export of what was trained with a loss's `prefixes`.
    """

    name: Literal["RecModel"]
    infer_output_key: Literal["features"] = "features"
    infer_add_softmax: Annotated[Literal[False], BeforeValidator(_text_false)] = False
    use_sync_bn: bool = False
    Backbone: BackboneSection
    BackboneStopLayer: StopLayer = StopLayer(name="flatten")
    Neck: NeckSection | None = None
    Head: HeadSection | None = None
    prefix: Dim | None = None

    @model_validator(mode="after")
    def head_takes_the_neck(self) -> ArchSection:
        if self.Neck is not None and self.Head is not None and self.Head.embedding_size != self.Neck.outputs:
            raise ValueError(
                f"Head.embedding_size {self.Head.embedding_size} is not the {self.Neck.outputs} dimensions of the neck"
            )
        return self
