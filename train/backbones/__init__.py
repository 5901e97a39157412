"""Backbones by the reference's names. One literal table; a name maps to a module, a class and its options."""

from __future__ import annotations

import importlib
from typing import Any

from ...runtimes.core.config import require_known
from ...runtimes.core.errors import InputError

BACKBONES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "ResNet50": ("resnet", "ResNet50", {}),
    "ResNet50_vd": ("resnet", "ResNet50", {"vd": True}),
    "ResNet50_last_stage_stride1": ("resnet", "ResNet50", {"last_stride": 1}),
    "ResNet50_adaptive_max_pool2d": ("resnet", "ResNet50", {"max_pool_head": True}),
    **{
        f"MobileNetV3_{size}_x{scale}".replace(".", "_"): (
            "mobilenet_v3",
            "MobileNetV3",
            {"size": size, "scale": scale},
        )
        for size in ("small", "large")
        for scale in (0.35, 0.5, 0.75, 1.0, 1.25)
    },
    **{
        f"PPLCNet_x{scale}".replace(".", "_"): ("pplcnet", "PPLCNet", {"scale": scale})
        for scale in (0.25, 0.35, 0.5, 0.75, 1.0, 1.5, 2.0, 2.5)
    },
    "PPLCNet_x2_5_Tanh": ("pplcnet", "PPLCNet", {"scale": 2.5, "tanh": True}),
    "PPLCNetV2_small": ("pplcnet_v2", "PPLCNetV2", {"scale": 0.75, "depths": (2, 2, 4, 2)}),
    "PPLCNetV2_base": ("pplcnet_v2", "PPLCNetV2", {"scale": 1.0, "depths": (2, 2, 6, 2)}),
    "PPLCNetV2_large": ("pplcnet_v2", "PPLCNetV2", {"scale": 1.25, "depths": (2, 2, 8, 2)}),
    "PPLCNetV2_base_ShiTu": ("pplcnet_v2", "PPLCNetV2", {"scale": 1.0, "depths": (2, 2, 6, 2), "shitu": True}),
    "MobileNetV2": ("mobilenet_v2", "MobileNetV2", {"scale": 1.0}),
    **{
        f"MobileNetV2_x{scale}".replace(".", "_"): ("mobilenet_v2", "MobileNetV2", {"scale": scale})
        for scale in (0.25, 0.5, 0.75, 1.5, 2.0)
    },
    "EfficientNetLite0": ("efficientnet_lite", "EfficientNetLite", {"width": 1.0, "depth": 1.0}),
    "EfficientNetLite1": ("efficientnet_lite", "EfficientNetLite", {"width": 1.0, "depth": 1.1}),
    "EfficientNetLite2": ("efficientnet_lite", "EfficientNetLite", {"width": 1.1, "depth": 1.2}),
}
OPTIONS = {  # of the config's, and whose they are
    "stem_act": ("resnet",),
    "class_expand": ("pplcnet_v2",),
    "class_num": ("mobilenet_v3", "pplcnet"),
}


def build_backbone(name: str, **options: Any) -> Any:
    """A `paddle.nn.Layer` from float32 `(N, 3, H, W)` to float32 `(N, features)`, with `.features` the width and
    `.pools_last`, whether nothing but a flatten lies between the global pooling and them.
    """
    require_known(name, BACKBONES, "Arch.Backbone.name")
    module, cls, fixed = BACKBONES[name]
    for option in options:
        if module not in OPTIONS[option]:
            raise InputError(f"Arch.Backbone.{option}: {name} has no such option")
    return getattr(importlib.import_module(f".{module}", __package__), cls)(**fixed, **options)
