"""The network: backbone and neck, as the reference's RecModel names them."""

from __future__ import annotations

from typing import Any

import paddle
from paddle import nn

from ..runtimes.core.errors import InputError
from .backbones import build_backbone
from .config.training import ArchSection, Initializer, ParameterAttr


def build_initializer(options: Initializer) -> Any:
    """A Paddle initializer."""
    if options.name == "KaimingNormal":
        return nn.initializer.KaimingNormal(
            fan_in=options.fan_in, negative_slope=options.negative_slope, nonlinearity=options.nonlinearity
        )
    if options.name == "XavierNormal":
        return nn.initializer.XavierNormal()
    if options.name == "Normal":
        return nn.initializer.Normal(options.mean, options.std)
    return nn.initializer.Constant(options.value)


def _attr(options: ParameterAttr | None, default: Any = None) -> Any:
    initializer = build_initializer(options.initializer) if options else default
    return paddle.ParamAttr(initializer=initializer) if initializer is not None else None


class LinearNeck(nn.Layer):
    """`features -> embedding`, parameters under `fc`."""

    def __init__(self, features: int, dim: int, weight: ParameterAttr | None, bias: ParameterAttr | None) -> None:
        super().__init__()
        weight_attr = _attr(weight, nn.initializer.XavierNormal())
        self.fc = nn.Linear(features, dim, weight_attr=weight_attr, bias_attr=_attr(bias))

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        return self.fc(x)


class EmbeddingNetwork(nn.Layer):
    """Float32 `(N, 3, H, W)` -> raw embedding `(N, D)`; normalisation stays outside the graph.

    Paddle's exporter needs the layer's own argument of `forward` to be called `self`.
    """

    def __init__(self, arch: ArchSection) -> None:
        super().__init__()
        options: dict[str, Any] = {}
        if "stem_act" in arch.Backbone.model_fields_set:
            options["stem_act"] = arch.Backbone.stem_act
        self.backbone = build_backbone(arch.Backbone.name, **options)
        features = self.backbone.features
        if arch.Neck.embedding_size != features:
            raise InputError(
                f"Arch.Neck.embedding_size: {arch.Backbone.name} gives {features} features,"
                f" got {arch.Neck.embedding_size}"
            )
        self.neck = LinearNeck(features, arch.Neck.class_num, arch.Neck.weight_attr, arch.Neck.bias_attr)
        self.embedding_dim = arch.Neck.class_num

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        return self.neck(self.backbone(x))
