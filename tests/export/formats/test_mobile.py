"""MNN and LiteRT: what is made from ONNX gives what the model gives, and their converters keep to themselves."""

from __future__ import annotations

import ctypes
import importlib.util
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from no_sockets import without_sockets
from onnx import helper
from small_onnx import DIM, SIDE, constant, network, write

from edgerecall.export.context import Context, FormatFailed
from edgerecall.export.formats import litert_format, mnn_format
from edgerecall.export.formats.litert_format import litert
from edgerecall.export.formats.mnn_format import mnn
from edgerecall.export.sources.normal_onnx import prepare, reference
from edgerecall.runtimes.bundle.bundle import Bundle
from edgerecall.runtimes.core.errors import RuntimeFailed, RuntimeUnavailable
from edgerecall.runtimes.predictor.interface import ModelIO, RunOptions
from edgerecall.runtimes.predictor.registry import open_files

SHAPE = (3, SIDE, SIDE)
IO = ModelIO("images", SHAPE, DIM)
MAKERS = {"mnn": mnn, "litert": litert}
CONVERTERS = {"mnn": mnn_format.convert, "litert": litert_format.convert}
# A file that begins well; what is said of files, of another precision, and by the converter.
UNUSABLE = {
    "mnn": (
        struct.pack("<I", 1 << 30) * 64,
        "mnn cannot load the model: it is none",
        "runs fp32: ask for it",
        "MNN's converter",
    ),
    "litert": (
        b"\x1c\0\0\0TFL3" + bytes(400),
        "litert cannot load the model: ",
        r"the model's own types \(fp32\): ask for fp32",
        "onnx2tf",
    ),
}
pytestmark = [pytest.mark.runtime, pytest.mark.parametrize("runtime", MAKERS)]


def noise(count: int) -> np.ndarray:
    return np.random.default_rng(5).standard_normal((count, *SHAPE)).astype(np.float32)


def test_of_a_trained_bundle(runtime: str, real_bundle: Path) -> None:
    bundle = Bundle.open(real_bundle)
    _, tensors, sealed = bundle.golden()
    artifact = bundle.artifact(runtime)
    assert artifact.check is not None and artifact.size_bytes > 0.9 * bundle.artifact("onnxruntime").size_bytes
    for threads in (1, 2):
        with open_files(runtime, bundle.files(artifact), bundle.spec.io, RunOptions(threads=threads)) as predictor:
            for count in (8, 1, 3):  # sizes change to and fro
                got = predictor.embed(tensors[:count])
                np.testing.assert_allclose(got, sealed[:count], rtol=0, atol=5e-5 * abs(sealed).max())
            assert predictor.info.precision == "fp32"


@pytest.mark.parametrize("norm", ["ReduceL1", "ReduceL2", "ReduceSumSquare"])
def test_norms_inside_are_of_each_image(runtime: str, norm: str, tmp_path: Path) -> None:
    """MNN's converter takes them over the batch where their axes are an input."""
    model = network(opset=18)
    model.graph.node[-2].output[0] = "own"
    model.graph.node.insert(len(model.graph.node) - 1, helper.make_node(norm, ["own", "last"], ["n"], name="length"))
    model.graph.node.insert(len(model.graph.node) - 1, helper.make_node("Div", ["own", "n"], ["features"], name="d"))
    model.graph.initializer.append(constant("last", [1], np.int64))
    prepare(write(model, tmp_path / "model.onnx"), tmp_path / "plain.onnx", SHAPE, None)
    tensors = noise(4)
    expected = reference(tmp_path / "model.onnx", tensors, None)
    (tmp_path / "scratch").mkdir()
    context = Context(tmp_path / "bundle", tmp_path / "scratch", {"onnx": (tmp_path / "plain.onnx",)}, SHAPE)
    files = {role: str(path) for role, path in MAKERS[runtime](context).items()}
    with open_files(runtime, files, IO, RunOptions()) as predictor:
        np.testing.assert_allclose(predictor.embed(tensors), expected, atol=5e-5 * abs(expected).max())


@pytest.mark.parametrize("threads", [1, 2])
def test_computes_on_as_many_threads_as_asked_for_and_says_nothing(
    runtime: str, real_bundle: Path, threads: int
) -> None:
    """MNN's newer interface takes four, and it greets; LiteRT tells of XNNPACK."""
    code = f"""
import os
from edgerecall.runtimes.bundle.bundle import Bundle
from edgerecall.runtimes.embed.replicas import open_predictor
from edgerecall.runtimes.core.errors import RuntimeFailed, RuntimeUnavailable
from edgerecall.runtimes.predictor.interface import RunOptions
bundle = Bundle.open({str(real_bundle)!r})
with open_predictor(bundle, "onnxruntime") as other:  # what starts threads of its own is there already
    before = len(os.listdir("/proc/self/task"))
    with open_predictor(bundle, {runtime!r}, RunOptions(threads={threads})) as predictor:
        predictor.embed(bundle.golden()[1])
        print(len(os.listdir("/proc/self/task")) - before)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (result.stdout, result.stderr) == (f"{threads - 1}\n", "")


def test_the_converter_opens_no_socket_and_writes_in_its_folder_alone(runtime: str, tmp_path: Path) -> None:
    opened = without_sockets("import socket; socket.socket()")
    assert opened.returncode == -31 and ctypes.sizeof(ctypes.c_void_p) == 8  # SIGSYS: the filter works
    source = write(network(), tmp_path / "source.onnx")
    before = source.read_bytes()
    for name in ("home", "work", "tmp", "elsewhere"):
        (tmp_path / name).mkdir()
    code = f"""
import os
from pathlib import Path
os.environ.update(HOME={str(tmp_path / "home")!r}, TMPDIR={str(tmp_path / "tmp")!r})
os.chdir({str(tmp_path / "elsewhere")!r})
from edgerecall.export.formats.{runtime}_format import convert
work = Path({str(tmp_path / "work")!r})
convert(Path({str(source)!r}), work / "artifact", work)
"""
    result = without_sockets(code)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "work" / "artifact").is_file() and source.read_bytes() == before
    assert [path for name in ("home", "tmp", "elsewhere") for path in (tmp_path / name).iterdir()] == []


def test_a_converter_that_is_not_installed(runtime: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package, remedy = {"mnn": ("MNN", r"'edgerecall\[mnn\]'"), "litert": ("onnx2tf", "--no-deps .* onnx2tf")}[runtime]
    real: Any = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name == package else real(name, *more))
    context = Context(tmp_path / "bundle", tmp_path, {"onnx": (write(network(), tmp_path / "m.onnx"),)}, SHAPE)
    with pytest.raises(FormatFailed, match=f"needs {package}: run .pip install {remedy}"):
        MAKERS[runtime](context)


def test_what_cannot_be_loaded_or_converted(runtime: str, tmp_path: Path) -> None:
    broken, refused, asked, converter = UNUSABLE[runtime]
    for content in (b"", b"garbage" * 100, broken):
        (tmp_path / "model").write_bytes(content)
        with pytest.raises(RuntimeFailed, match=refused):
            open_files(runtime, {"model": str(tmp_path / "model")}, IO, RunOptions())
    with pytest.raises(RuntimeUnavailable, match=asked):
        open_files(runtime, {}, IO, RunOptions(precision="bf16"))
    (tmp_path / "bad.onnx").write_bytes(write(network(), tmp_path / "good.onnx").read_bytes()[:400])
    with pytest.raises(FormatFailed, match=converter):
        CONVERTERS[runtime](tmp_path / "bad.onnx", tmp_path / "converted", tmp_path)
    assert not (tmp_path / "converted").exists()
