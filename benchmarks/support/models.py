"""Bundles of untrained networks at 224 pixels and made-up photographs, for the benchmarks; made once, then kept."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / "build" / "benchmarks"
FEATURES = {"ResNet50": 2048, "MobileNetV3_large_x1_0": 1280, "MobileNetV3_small_x1_0": 1280}
SCALES = {"ResNet50": 1.0, "MobileNetV3_large_x1_0": 3.0, "MobileNetV3_small_x1_0": 3.0}  # of batch norms


def photo(seed: int = 0) -> bytes:
    """A made-up photograph as JPEG: broad shapes, texture, sensor noise; 400 high, 300 wide."""
    rng = np.random.default_rng(seed)
    broad = Image.fromarray(rng.integers(0, 256, (8, 6, 3), dtype=np.uint8)).resize(
        (300, 400), Image.Resampling.BICUBIC
    )
    fine = Image.fromarray(rng.integers(0, 60, (100, 75, 3), dtype=np.uint8)).resize(
        (300, 400), Image.Resampling.BILINEAR
    )
    pixels = np.asarray(broad, dtype=float) * 0.8 + np.asarray(fine) + rng.normal(0, 2, (400, 300, 3))
    stream = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(stream, "JPEG", quality=90)
    return stream.getvalue()


def photos(count: int) -> Path:
    """A folder of that many of them."""
    folder = CACHE / f"photos-{count}"
    if not (folder / f"{count - 1:05d}.jpg").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        for seed in range(count):
            (folder / f"{seed:05d}.jpg").write_bytes(photo(seed))
    return folder


def calibrate(network: Any, scale: float) -> None:
    """Gives the batch norms statistics, without which deep random networks overflow, and a scale at which what differs
    between images stays from layer to layer: at 1 it dies away in MobileNetV3, and only rounding is left of it.
    """
    import paddle
    from paddle import nn

    for layer in network.sublayers():
        if isinstance(layer, nn.BatchNorm2D):
            layer._momentum = 0.5
            layer.weight.set_value(scale * paddle.ones_like(layer.weight))
    with paddle.no_grad():
        network.train()
        for seed in range(5):
            patches = np.random.default_rng(seed).standard_normal((8, 3, 7, 7)).astype(np.float32)
            network(nn.functional.interpolate(paddle.to_tensor(patches), [224, 224], mode="bilinear"))
        network.eval()


def bundle_of(backbone: str) -> Path:
    """The exported bundle of a backbone with random weights and a 128-d embedding."""
    target = CACHE / backbone
    if (target / "bundle.json").is_file():
        return target
    import paddle

    from edgerecall.train.config.training import load_config
    from edgerecall.train.network import EmbeddingNetwork

    overrides = [
        "Global.device=cpu",
        f"Arch.Backbone={{name: {backbone}}}",
        f"Arch.Neck.embedding_size={FEATURES[backbone]}",
    ]
    config_file = ROOT / "configs" / "xbm_resnet50.yaml"
    paddle.seed(0)
    network = EmbeddingNetwork(load_config(config_file, overrides).Arch)
    calibrate(network, SCALES[backbone])
    checkpoint = CACHE / f"{backbone}-random"
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    paddle.save(network.state_dict(), f"{checkpoint}.pdparams")
    options = [argument for override in overrides for argument in ("-o", override)]
    command = [sys.executable, "-m", "edgerecall", "export", str(target), "-c", str(config_file)]
    subprocess.run([*command, "--checkpoint", str(checkpoint), "--images", str(photos(8)), *options], check=True)
    return target
