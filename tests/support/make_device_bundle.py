"""Writes tests/golden/bundle: a bundle of a few kilobytes in every format, for the C++ program's tests.

Usage: FLAGS_enable_pir_api=0 python tests/support/make_device_bundle.py. Run it only when the bundle's format changes.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import paddle
from PIL import Image

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
SIDE, DIM, IMAGES = 32, 8, 4
PREPROCESS = """
RecPreProcess:
  transform_ops:
    - DecodeImage: {to_rgb: true, channel_first: false}
    - ResizeImage: {resize_short: 36, return_numpy: false, interpolation: bilinear, backend: pil}
    - CropImage: {size: 32}
    - NormalizeImage: {scale: 1.0/255.0, mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225], order: ''}
    - ToCHWImage:
"""


class Tiny(paddle.nn.Layer):
    """Two convolutions and a projection."""

    def __init__(self) -> None:
        super().__init__()
        self.first = paddle.nn.Conv2D(3, 8, 3, stride=2, padding=1)
        self.second = paddle.nn.Conv2D(8, 16, 3, stride=2, padding=1)
        self.pool = paddle.nn.AdaptiveAvgPool2D(1)
        self.project = paddle.nn.Linear(16, DIM)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        x = paddle.nn.functional.relu(self.first(x))
        x = self.pool(paddle.nn.functional.relu(self.second(x)))
        return self.project(paddle.reshape(x, [-1, 16]))


def main() -> None:
    """Model, images, export; the folder is relative, so that no path of this machine is written down."""
    paddle.seed(3)
    random = np.random.default_rng(3)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        spec = [paddle.static.InputSpec([None, 3, SIDE, SIDE], "float32", "x")]
        paddle.jit.save(paddle.jit.to_static(Tiny(), spec), "model/inference")
        Path("images").mkdir()
        for index in range(IMAGES):
            small = random.integers(0, 256, (6, 8, 3), dtype=np.uint8)
            picture = Image.fromarray(small).resize((60 - index, 44 + index), Image.Resampling.BICUBIC)
            picture.save(f"images/{index}.{'jpg' if index % 2 else 'png'}")
        Path("preprocess.yaml").write_text(PREPROCESS)
        command = [sys.executable, "-m", "edgerecall", "export", "bundle", "--model", "model"]
        command += ["--preprocess", "preprocess.yaml", "--images", "images"]
        command += ["--formats", "paddle-pdmodel,onnx,openvino,lite-x86,lite-armv8,lite-armv7,ncnn"]
        subprocess.run(command, check=True)
        shutil.rmtree(GOLDEN / "bundle", ignore_errors=True)
        shutil.copytree("bundle", GOLDEN / "bundle")
        os.chdir(GOLDEN)


if __name__ == "__main__":
    main()
