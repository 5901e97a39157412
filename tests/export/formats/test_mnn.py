"""What is MNN's own: norms written as sums, sessions in workers, halves that are rounded."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from many_threads import assert_threads_change_nothing, encoded
from small_onnx import DIM, SIDE

from edgerecall.runtimes.bundle.bundle import Bundle
from edgerecall.runtimes.embed.model import EmbeddingModel
from edgerecall.runtimes.predictor.interface import ModelIO, RunOptions
from edgerecall.runtimes.worker.client import WorkerPredictor

pytestmark = pytest.mark.runtime
Run = Callable[..., subprocess.CompletedProcess[str]]
SHAPE = (3, SIDE, SIDE)
IO = ModelIO("images", SHAPE, DIM)


def test_under_threads(real_bundle: Path, data: Path) -> None:
    bundle = Bundle.open(real_bundle)
    files = bundle.files(bundle.artifact("mnn"))
    predictors = [WorkerPredictor("mnn", files, bundle.spec.io, RunOptions()) for _ in range(2)]
    with EmbeddingModel(bundle.spec, predictors, batch_size=4) as model:
        assert_threads_change_nothing(model, encoded(data))


def test_prints_nothing_of_its_own(real_bundle: Path, tmp_path: Path) -> None:
    """It greets on standard output, which is `predict`'s answer."""
    image = next(iter((real_bundle / "golden").glob("00.*")))
    code = f"""
import edgerecall
with edgerecall.load({str(real_bundle)!r}, runtime="mnn") as model:
    print(model.embed_images([{str(image)!r}]).shape)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.stdout == "(1, 32)\n", result.stdout + result.stderr


def test_half_the_bytes(edgerecall: Run, real_bundle: Path, tmp_path: Path) -> None:
    result = edgerecall("quantize", real_bundle, "--artifacts", "mnn-fp16", "--out", tmp_path / "bundle")
    assert result.returncode == 0 and "mnn-fp16: weights in float16" in result.stdout, result.stderr
    bundle = Bundle.open(tmp_path / "bundle")
    half, whole = (bundle.artifact("mnn", quantisation=name) for name in ("fp16", "fp32"))
    assert half.size_bytes < 0.65 * whole.size_bytes and half.recipe is not None and half.recipe.tool == "MNN"
    assert half.check is not None and half.check.min_cosine > 0.9999 and half.check.max_abs_error > 0
