"""MNN: its artifact gives what the model gives, in a batch too, and its converter keeps to itself."""

from __future__ import annotations

import ctypes
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from many_threads import assert_threads_change_nothing, encoded
from no_sockets import without_sockets
from onnx import helper
from small_onnx import DIM, SIDE, constant, network, write

from edgerecall.export.context import Context, FormatFailed
from edgerecall.export.formats.mnn_format import convert, mnn, without_norms
from edgerecall.export.sources.normal_onnx import prepare, reference
from edgerecall.runtimes.bundle.bundle import Bundle
from edgerecall.runtimes.core.errors import RuntimeFailed, RuntimeUnavailable
from edgerecall.runtimes.embed.model import EmbeddingModel
from edgerecall.runtimes.predictor.interface import ModelIO, RunOptions
from edgerecall.runtimes.predictor.registry import open_files
from edgerecall.runtimes.worker.client import WorkerPredictor

pytestmark = pytest.mark.runtime
Run = Callable[..., subprocess.CompletedProcess[str]]
SHAPE = (3, SIDE, SIDE)
IO = ModelIO("images", SHAPE, DIM)


def made(folder: Path, model: Path) -> dict[str, str]:
    """The artifact of an ONNX model."""
    (folder / "scratch").mkdir()
    context = Context(folder / "bundle", folder / "scratch", {"onnx": (model,)}, SHAPE)
    return {role: str(path) for role, path in mnn(context).items()}


def noise(count: int) -> np.ndarray:
    return np.random.default_rng(5).standard_normal((count, *SHAPE)).astype(np.float32)


def test_of_a_trained_bundle(real_bundle: Path) -> None:
    bundle = Bundle.open(real_bundle)
    _, tensors, sealed = bundle.golden()
    artifact = bundle.artifact("mnn")
    assert artifact.check is not None and artifact.size_bytes > 0.9 * bundle.artifact("onnxruntime").size_bytes
    for threads in (1, 2):
        with open_files("mnn", bundle.files(artifact), bundle.spec.io, RunOptions(threads=threads)) as predictor:
            for count in (8, 1, 3):  # sizes change to and fro
                got = predictor.embed(tensors[:count])
                np.testing.assert_allclose(got, sealed[:count], rtol=0, atol=5e-5 * abs(sealed).max())
            assert predictor.info.precision == "fp32"


@pytest.mark.parametrize("norm", ["ReduceL1", "ReduceL2", "ReduceSumSquare"])
def test_norms_inside_are_of_each_image(norm: str, tmp_path: Path) -> None:
    """MNN's converter takes them over the batch where their axes are an input."""
    model = network(opset=18)
    model.graph.node[-2].output[0] = "own"
    model.graph.node.insert(len(model.graph.node) - 1, helper.make_node(norm, ["own", "last"], ["n"], name="length"))
    model.graph.node.insert(len(model.graph.node) - 1, helper.make_node("Div", ["own", "n"], ["features"], name="d"))
    model.graph.initializer.append(constant("last", [1], np.int64))
    prepare(write(model, tmp_path / "model.onnx"), tmp_path / "plain.onnx", SHAPE, None)
    tensors = noise(4)
    expected = reference(tmp_path / "model.onnx", tensors, None)
    with open_files("mnn", made(tmp_path, tmp_path / "plain.onnx"), IO, RunOptions()) as predictor:
        np.testing.assert_allclose(predictor.embed(tensors), expected, atol=5e-5 * abs(expected).max())
    assert norm not in {node.op_type for node in without_norms(onnx.load(str(tmp_path / "plain.onnx"))).graph.node}


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


@pytest.mark.parametrize("threads", [1, 2])
def test_computes_on_as_many_threads_as_asked_for(real_bundle: Path, threads: int) -> None:
    """MNN's newer interface takes four."""
    code = f"""
import os
from edgerecall.runtimes.bundle.bundle import Bundle
from edgerecall.runtimes.embed.replicas import open_predictor
from edgerecall.runtimes.predictor.interface import RunOptions
bundle = Bundle.open({str(real_bundle)!r})
with open_predictor(bundle, "onnxruntime") as other:  # what starts threads of its own is there already
    before = len(os.listdir("/proc/self/task"))
    with open_predictor(bundle, "mnn", RunOptions(threads={threads})) as predictor:
        predictor.embed(bundle.golden()[1])
        print(len(os.listdir("/proc/self/task")) - before)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.stdout == f"{threads - 1}\n", result.stdout + result.stderr


def test_what_cannot_be_loaded(tmp_path: Path, real_bundle: Path) -> None:
    for content in (b"", b"garbage" * 100, struct.pack("<I", 1 << 30) * 64):
        (tmp_path / "model.mnn").write_bytes(content)
        with pytest.raises(RuntimeFailed, match="mnn cannot load the model: it is none"):
            open_files("mnn", {"model": str(tmp_path / "model.mnn")}, IO, RunOptions())
    with pytest.raises(RuntimeUnavailable, match="runs fp32: ask for it"):
        open_files("mnn", {}, IO, RunOptions(precision="bf16"))
    (tmp_path / "bad.onnx").write_bytes(write(network(), tmp_path / "good.onnx").read_bytes()[:400])
    with pytest.raises(FormatFailed, match="MNN's converter"):
        convert(tmp_path / "bad.onnx", tmp_path / "made.mnn", tmp_path)
    assert not (tmp_path / "made.mnn").exists()


def test_half_the_bytes(edgerecall: Run, real_bundle: Path, tmp_path: Path) -> None:
    result = edgerecall("quantize", real_bundle, "--artifacts", "mnn-fp16", "--out", tmp_path / "bundle")
    assert result.returncode == 0 and "mnn-fp16: weights in float16" in result.stdout, result.stderr
    bundle = Bundle.open(tmp_path / "bundle")
    half, whole = (bundle.artifact("mnn", quantisation=name) for name in ("fp16", "fp32"))
    assert half.size_bytes < 0.65 * whole.size_bytes and half.recipe is not None and half.recipe.tool == "MNN"
    assert half.check is not None and half.check.min_cosine > 0.9999 and half.check.max_abs_error > 0


def test_the_converter_opens_no_socket_and_writes_in_its_folder_alone(tmp_path: Path) -> None:
    opened = without_sockets("import socket; socket.socket()")
    assert opened.returncode == -31 and ctypes.sizeof(ctypes.c_void_p) == 8  # SIGSYS: the filter works
    source = write(network(), tmp_path / "source.onnx")
    for name in ("home", "work", "tmp", "elsewhere"):
        (tmp_path / name).mkdir()
    code = f"""
import os
from pathlib import Path
os.environ.update(HOME={str(tmp_path / "home")!r}, TMPDIR={str(tmp_path / "tmp")!r})
os.chdir({str(tmp_path / "elsewhere")!r})
from edgerecall.export.formats.mnn_format import convert
convert(Path({str(source)!r}), Path({str(tmp_path / "work" / "model.mnn")!r}), Path({str(tmp_path / "work")!r}))
"""
    result = without_sockets(code)
    assert result.returncode == 0, result.stderr
    assert sorted(path.name for path in (tmp_path / "work").iterdir()) == ["model.mnn", "model.onnx"]
    assert [path for name in ("home", "tmp", "elsewhere") for path in (tmp_path / name).iterdir()] == []
    shutil.rmtree(tmp_path / "work")
