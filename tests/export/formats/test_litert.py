"""LiteRT: its artifact gives what the model gives, in a batch too, and its converter keeps to itself."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from many_threads import assert_threads_change_nothing, encoded
from no_sockets import without_sockets
from onnx import helper
from small_onnx import DIM, SIDE, constant, network, write

from edgerecall.export.context import Context, FormatFailed
from edgerecall.export.formats.litert_format import convert, litert
from edgerecall.export.sources.normal_onnx import prepare, reference
from edgerecall.runtimes.bundle.bundle import Bundle
from edgerecall.runtimes.core.errors import RuntimeFailed, RuntimeUnavailable
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


def test_of_a_trained_bundle(real_bundle: Path) -> None:
    bundle = Bundle.open(real_bundle)
    _, tensors, sealed = bundle.golden()
    artifact = bundle.artifact("litert")
    assert artifact.check is not None and artifact.size_bytes > 0.9 * bundle.artifact("onnxruntime").size_bytes
    for threads in (1, 2):
        with open_files("litert", bundle.files(artifact), bundle.spec.io, RunOptions(threads=threads)) as predictor:
            for count in (8, 1, 3):  # sizes change to and fro
                got = predictor.embed(tensors[:count])
                np.testing.assert_allclose(got, sealed[:count], rtol=0, atol=5e-5 * abs(sealed).max())
            assert predictor.info.precision == "fp32" and predictor.info.detail["xnnpack"] >= 1


@pytest.mark.parametrize("norm", ["ReduceL1", "ReduceL2", "ReduceSumSquare"])
def test_norms_inside_are_of_each_image(norm: str, tmp_path: Path) -> None:
    model = network(opset=18)
    model.graph.node[-2].output[0] = "own"
    model.graph.node.insert(len(model.graph.node) - 1, helper.make_node(norm, ["own", "last"], ["n"], name="length"))
    model.graph.node.insert(len(model.graph.node) - 1, helper.make_node("Div", ["own", "n"], ["features"], name="d"))
    model.graph.initializer.append(constant("last", [1], np.int64))
    prepare(write(model, tmp_path / "model.onnx"), tmp_path / "plain.onnx", SHAPE, None)
    tensors = noise(4)
    expected = reference(tmp_path / "model.onnx", tensors, None)
    with open_files("litert", made(tmp_path, tmp_path / "plain.onnx"), IO, RunOptions()) as predictor:
        np.testing.assert_allclose(predictor.embed(tensors), expected, atol=5e-5 * abs(expected).max())


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


@pytest.mark.parametrize("threads", [1, 2])
def test_says_nothing_and_computes_on_as_many_threads_as_asked_for(real_bundle: Path, threads: int) -> None:
    code = f"""
import os
from edgerecall.runtimes.bundle.bundle import Bundle
from edgerecall.runtimes.embed.replicas import open_predictor
from edgerecall.runtimes.predictor.interface import RunOptions
bundle = Bundle.open({str(real_bundle)!r})
with open_predictor(bundle, "onnxruntime") as other:  # what starts threads of its own is there already
    before = len(os.listdir("/proc/self/task"))
    with open_predictor(bundle, "litert", RunOptions(threads={threads})) as predictor:
        predictor.embed(bundle.golden()[1])
        print(len(os.listdir("/proc/self/task")) - before)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (result.stdout, result.stderr) == (f"{threads - 1}\n", "")


def test_what_cannot_be_loaded(tmp_path: Path, real_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for content in (b"", b"garbage" * 100, b"\x1c\0\0\0TFL3" + bytes(400)):
        (tmp_path / "model.tflite").write_bytes(content)
        with pytest.raises(RuntimeFailed, match="litert cannot load the model: "):
            open_files("litert", {"model": str(tmp_path / "model.tflite")}, IO, RunOptions())
    bundle = Bundle.open(real_bundle)
    other = ModelIO("x", (3, 20, 30), 32)
    with pytest.raises(RuntimeFailed, match=r"expected float32 images 20 x 30, it takes float32 \(64, 64, 3\)"):
        open_files("litert", bundle.files(bundle.artifact("litert")), other, RunOptions())
    with pytest.raises(RuntimeUnavailable, match=r"the model's own types \(fp32\): ask for fp32"):
        open_files("litert", {}, IO, RunOptions(precision="bf16"))
    (tmp_path / "bad.onnx").write_bytes(write(network(), tmp_path / "good.onnx").read_bytes()[:400])
    with pytest.raises(FormatFailed, match="onnx2tf"):
        convert(tmp_path / "bad.onnx", tmp_path / "made.tflite", tmp_path)
    assert not (tmp_path / "made.tflite").exists()
    real: Any = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name == "onnx2tf" else real(name))
    with pytest.raises(
        FormatFailed, match=r"needs onnx2tf: run .pip install --no-deps --ignore-requires-python onnx2tf"
    ):
        made(tmp_path, tmp_path / "good.onnx")


def test_the_converter_opens_no_socket_and_writes_in_its_folder_alone(tmp_path: Path) -> None:
    source = write(network(), tmp_path / "source.onnx")
    before = source.read_bytes()
    for name in ("home", "work", "tmp", "elsewhere"):
        (tmp_path / name).mkdir()
    code = f"""
import os
from pathlib import Path
os.environ.update(HOME={str(tmp_path / "home")!r}, TMPDIR={str(tmp_path / "tmp")!r})
os.chdir({str(tmp_path / "elsewhere")!r})
from edgerecall.export.formats.litert_format import convert
convert(Path({str(source)!r}), Path({str(tmp_path / "work" / "model.tflite")!r}), Path({str(tmp_path / "work")!r}))
"""
    result = without_sockets(code)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "work" / "model.tflite").is_file() and source.read_bytes() == before
    assert [path for name in ("home", "tmp", "elsewhere") for path in (tmp_path / name).iterdir()] == []
