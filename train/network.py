"""The network: backbone and neck, as the reference's RecModel names them."""

from __future__ import annotations

from typing import Any, Literal

import paddle
from paddle import nn

from ..runtimes.core.errors import InputError
from .backbones import build_backbone
from .config.arch import ArchSection, BatchNormNeck, FCNeck, Initializer, ParameterAttr, VehicleNeck


def build_initializer(options: Initializer) -> Any:
    """A Paddle initializer."""
    kaiming = {"KaimingNormal": nn.initializer.KaimingNormal, "KaimingUniform": nn.initializer.KaimingUniform}
    if options.name in kaiming:
        return kaiming[options.name](
            fan_in=options.fan_in, negative_slope=options.negative_slope, nonlinearity=options.nonlinearity
        )
    if options.name == "XavierNormal":
        return nn.initializer.XavierNormal()
    if options.name == "Normal":
        return nn.initializer.Normal(options.mean, options.std)
    return nn.initializer.Constant(options.value)


def parameter_attr(options: ParameterAttr | Literal[False] | None, default: Any = None) -> Any:
    """Paddle's attribute of a parameter; False for none of it, None for Paddle's own."""
    if options is False:
        return False
    initializer = build_initializer(options.initializer) if options else default
    rate = options.learning_rate if options else 1.0
    return paddle.ParamAttr(initializer=initializer, learning_rate=rate) if initializer is not None else None


def linear(
    inputs: int, outputs: int, weight: ParameterAttr | None, bias: ParameterAttr | Literal[False] | None
) -> nn.Linear:
    """A linear layer as PaddleClas's FC has it."""
    attr = parameter_attr(weight, nn.initializer.XavierNormal())
    return nn.Linear(inputs, outputs, weight_attr=attr, bias_attr=parameter_attr(bias))


class LinearNeck(nn.Layer):
    """`features -> embedding`, parameters under `fc`."""

    def __init__(self, options: FCNeck) -> None:
        super().__init__()
        self.fc = linear(options.embedding_size, options.class_num, options.weight_attr, options.bias_attr)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        return self.fc(x)


class NormNeck(nn.Layer):
    """A batch norm of the features, parameters under `feat_bn`."""

    def __init__(self, options: BatchNormNeck) -> None:
        super().__init__()
        self.feat_bn = nn.BatchNorm1D(
            options.num_features,
            weight_attr=parameter_attr(options.weight_attr),
            bias_attr=parameter_attr(options.bias_attr),
        )

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        return self.feat_bn(x)


class ConvNeck(nn.Layer):
    """A 1x1 convolution of the pooled features, parameters under `conv`."""

    def __init__(self, options: VehicleNeck) -> None:
        super().__init__()
        self.conv = nn.Conv2D(options.in_channels, options.out_channels, 1)
        self.flatten = nn.Flatten()

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        return self.flatten(self.conv(x.unsqueeze([2, 3])))


NECKS: dict[type, Any] = {FCNeck: LinearNeck, BatchNormNeck: NormNeck, VehicleNeck: ConvNeck}


class EmbeddingNetwork(nn.Layer):
    """Float32 `(N, 3, H, W)` -> raw embedding `(N, D)`; normalisation stays outside the graph.

    Paddle's exporter needs the layer's own argument of `forward` to be called `self`.
    """

    def __init__(self, arch: ArchSection) -> None:
        super().__init__()
        options = dict(arch.Backbone.options)
        if "BackboneStopLayer" in arch.model_fields_set:  # before the network's own last linear layer
            options.pop("class_num", None)
        self.backbone = build_backbone(arch.Backbone.name, **options)
        self.freeze_norm = arch.Backbone.freeze_norm
        features = self.backbone.features
        if arch.BackboneStopLayer.name == "avg_pool" and not self.backbone.pools_last:
            raise InputError(
                f"Arch.BackboneStopLayer.name: {arch.Backbone.name} has layers after avg_pool: expected flatten"
            )
        if arch.Neck is not None and arch.Neck.inputs != features:
            name = next(name for name in ("embedding_size", "num_features", "in_channels") if hasattr(arch.Neck, name))
            raise InputError(
                f"Arch.Neck.{name}: {arch.Backbone.name} gives {features} features, got {arch.Neck.inputs}"
            )
        self.neck = None if arch.Neck is None else NECKS[type(arch.Neck)](arch.Neck)
        self.embedding_dim = features if arch.Neck is None else arch.Neck.outputs
        if arch.Head is not None and arch.Head.embedding_size != self.embedding_dim:
            raise InputError(
                f"Arch.Head.embedding_size: the embedding has {self.embedding_dim} dimensions,"
                f" got {arch.Head.embedding_size}"
            )
        self.prefix = arch.prefix
        if arch.prefix is not None:
            if arch.prefix > self.embedding_dim:
                raise InputError(f"Arch.prefix: the embedding has {self.embedding_dim} dimensions, got {arch.prefix}")
            self.embedding_dim = arch.prefix

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        return self.embed(self.backbone(x))

    def train(self) -> None:
        """For training; frozen batch norms stay in evaluation."""
        super().train()
        if self.freeze_norm:
            for layer in self.backbone.sublayers():
                if isinstance(layer, nn.BatchNorm2D | nn.SyncBatchNorm):
                    layer.eval()

    def embed(self, features: paddle.Tensor) -> paddle.Tensor:
        """The backbone's features `(N, F)` as embeddings `(N, D)`."""
        embeddings = features if self.neck is None else self.neck(features)
        return embeddings if self.prefix is None else embeddings[:, : self.prefix]

    def join_branches(self) -> None:
        """Makes of the backbone's parallel branches what computes the same in evaluation, in one layer each."""
        for layer in self.backbone.sublayers():
            if hasattr(layer, "join"):
                layer.join()
