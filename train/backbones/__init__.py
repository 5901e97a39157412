"""Backbones by the reference's names. One literal table; a name maps to a module, a class and its options."""

from __future__ import annotations

import importlib
from typing import Any

from ...runtimes.core.config import suggestion
from ...runtimes.core.errors import InputError

BACKBONES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "ResNet50": ("resnet", "ResNet50", {}),
    "ResNet50_adaptive_max_pool2d": ("resnet", "ResNet50", {"max_pool_head": True}),
    "MobileNetV3_small_x0_35": ("mobilenet_v3", "MobileNetV3", {"size": "small", "scale": 0.35}),
    "MobileNetV3_small_x0_5": ("mobilenet_v3", "MobileNetV3", {"size": "small", "scale": 0.5}),
    "MobileNetV3_small_x1_0": ("mobilenet_v3", "MobileNetV3", {"size": "small", "scale": 1.0}),
    "MobileNetV3_large_x0_5": ("mobilenet_v3", "MobileNetV3", {"size": "large", "scale": 0.5}),
    "MobileNetV3_large_x1_0": ("mobilenet_v3", "MobileNetV3", {"size": "large", "scale": 1.0}),
    "PPLCNet_x0_25": ("pplcnet", "PPLCNet", {"scale": 0.25}),
    "PPLCNet_x0_5": ("pplcnet", "PPLCNet", {"scale": 0.5}),
    "PPLCNet_x1_0": ("pplcnet", "PPLCNet", {"scale": 1.0}),
}


def build_backbone(name: str, **options: Any) -> Any:
    """A `paddle.nn.Layer` from float32 `(N, 3, H, W)` to float32 `(N, features)`, with `.features` the width."""
    if name not in BACKBONES:
        raise InputError(f"Arch.Backbone.name: unknown '{name}'{suggestion(name, BACKBONES)}")
    module, cls, fixed = BACKBONES[name]
    known = {"stem_act": "resnet"}
    for option in options:
        if known.get(option) != module:
            raise InputError(f"Arch.Backbone.{option}: {name} has no such option")
    return getattr(importlib.import_module(f".{module}", __package__), cls)(**fixed, **options)
