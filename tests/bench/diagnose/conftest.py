"""Bundles of small networks whose graphs are looked into."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import small_networks
import yaml
from shared_folders import made_once

TRANSFORM = [
    {"ResizeImage": {"size": [small_networks.SIDE] * 2, "backend": "pil", "interpolation": "bilinear"}},
    {"NormalizeImage": {"scale": 1 / 255, "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}},
    {"ToCHWImage": None},
]
FORMATS = "paddle,onnx,openvino,ncnn"


@pytest.fixture(scope="session")
def networks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model of each name, in both Paddle forms, and `images`."""
    from PIL import Image

    def make(folder: Path) -> None:
        for flags in ({}, {"FLAGS_enable_pir_api": "0"}):
            command = [sys.executable, small_networks.__file__, str(folder)]
            subprocess.run(command, env={**os.environ, **flags}, check=True, capture_output=True)
        (folder / "images").mkdir()
        rng = np.random.default_rng(0)
        for index in range(8):
            blocks = Image.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8))
            blocks.resize((80, 72), Image.Resampling.BICUBIC).save(folder / "images" / f"{index}.png")

    return made_once(tmp_path_factory, "networks", make)


@pytest.fixture(scope="session")
def network_bundle(networks: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The bundle of one of `small_networks.NAMES`, made once."""

    def bundle(name: str) -> Path:
        make = lambda folder: export(networks / name, networks / "images", folder)  # noqa: E731
        return made_once(tmp_path_factory, name, make) / "bundle"

    return bundle


def export(model: Path, images: Path, folder: Path) -> None:
    """As a user exports a model of their own."""
    preprocess = folder / "preprocess.yaml"
    preprocess.write_text(yaml.safe_dump({"RecPreProcess": {"transform_ops": TRANSFORM}}))
    command = [sys.executable, "-m", "edgerecall", "export", str(folder / "bundle"), "--model", str(model)]
    command += ["--preprocess", str(preprocess), "--images", str(images), "--formats", FORMATS]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
