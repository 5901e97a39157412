"""What is LiteRT's own: models of one image, of planes, and what it does not load."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from many_threads import assert_threads_change_nothing, encoded
from small_onnx import DIM, SIDE, network, write

from edgerecall.export.context import Context
from edgerecall.export.formats.litert_format import litert
from edgerecall.export.sources.normal_onnx import prepare, reference
from edgerecall.runtimes.bundle.bundle import Bundle
from edgerecall.runtimes.core.errors import RuntimeFailed
from edgerecall.runtimes.embed.model import EmbeddingModel
from edgerecall.runtimes.predictor.interface import ModelIO, RunOptions
from edgerecall.runtimes.predictor.registry import open_files

pytestmark = pytest.mark.runtime
Run = Callable[..., subprocess.CompletedProcess[str]]
SHAPE = (3, SIDE, SIDE)
IO = ModelIO("images", SHAPE, DIM)


def made(folder: Path, model: Path) -> dict[str, str]:
    """The artifact of an ONNX model."""
    (folder / "scratch").mkdir(exist_ok=True)
    context = Context(folder / "bundle", folder / "scratch", {"onnx": (model,)}, SHAPE)
    return {role: str(path) for role, path in litert(context).items()}


def noise(count: int) -> np.ndarray:
    return np.random.default_rng(5).standard_normal((count, *SHAPE)).astype(np.float32)


def test_a_model_of_planes_gets_planes(tmp_path: Path) -> None:
    """A TFLite model of somebody else's may take `(N, 3, H, W)`."""
    prepare(write(network(), tmp_path / "model.onnx"), tmp_path / "plain.onnx", SHAPE, None)
    code = f"""
import onnx2tf
onnx2tf.convert(input_onnx_file_path={str(tmp_path / "plain.onnx")!r}, output_folder_path={str(tmp_path / "made")!r},
                non_verbose=True, keep_ncw_or_nchw_or_ncdhw_input_names=[{prepared_input(tmp_path)!r}])
"""
    expected = reference(tmp_path / "model.onnx", noise(3), None)
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    with open_files(
        "litert", {"model": str(tmp_path / "made" / "plain_float32.tflite")}, IO, RunOptions()
    ) as predictor:
        assert not predictor._channels_last
        np.testing.assert_allclose(predictor.embed(noise(3)), expected, atol=5e-5 * abs(expected).max())


def prepared_input(folder: Path) -> str:
    """The name of the input of the model made plain."""
    import onnx

    return str(onnx.load(str(folder / "plain.onnx")).graph.input[0].name)


def test_a_model_of_one_image_gets_a_batch_one_by_one(tmp_path: Path) -> None:
    """As ONNX comes from exporters that were given no free batch, and TFLite from most."""
    source = write(network(batch=1, token=True), tmp_path / "model.onnx")
    expected = reference(source, noise(5), None)
    files = made(tmp_path, source)
    for batch in (1, 4):
        with open_files("litert", files, IO, RunOptions(batch=batch)) as predictor:
            for count in (1, 5, 2):
                got = predictor.embed(noise(5)[:count])
                np.testing.assert_allclose(got, expected[:count], atol=5e-5 * abs(expected).max())
            assert predictor._single


def test_under_threads(real_bundle: Path, data: Path) -> None:
    bundle = Bundle.open(real_bundle)
    files = bundle.files(bundle.artifact("litert"))
    predictors = [open_files("litert", files, bundle.spec.io, RunOptions()) for _ in range(2)]
    with EmbeddingModel(bundle.spec, predictors, batch_size=4) as model:
        assert_threads_change_nothing(model, encoded(data))


def test_a_model_of_other_images(real_bundle: Path) -> None:
    bundle = Bundle.open(real_bundle)
    other = ModelIO("x", (3, 20, 30), 32)
    with pytest.raises(RuntimeFailed, match=r"expected float32 images 20 x 30, it takes float32 \(64, 64, 3\)"):
        open_files("litert", bundle.files(bundle.artifact("litert")), other, RunOptions())
