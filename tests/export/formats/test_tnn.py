"""TNN: its converter is found where the user says, in the Python that it is built for, and its failures have reasons.

The converter and the runtime are stood in for: neither is in any package.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from small_onnx import SIDE, network, write

from edgerecall.export.context import Context, FormatFailed
from edgerecall.export.formats.tnn_format import VARIABLE, tnn
from edgerecall.runtimes.core.errors import RuntimeUnavailable
from edgerecall.runtimes.predictor.interface import ModelIO, RunOptions
from edgerecall.runtimes.predictor.registry import open_files

SHAPE = (3, SIDE, SIDE)
THIS = f"onnx2tnn.cpython-3{sys.version_info[1]}-x86.so"  # no ending of this Python's: onnx2tnn.py beside it is taken
CONVERTS = """
import os, pathlib, shutil
def convert(model, folder, *more):
    assert more == ("v1.0", "", 0, 0, "") and pathlib.Path.cwd() == pathlib.Path(folder) == pathlib.Path.home()
    shutil.copyfile(model, folder + "/model.tnnmodel")
    pathlib.Path(folder, "model.tnnproto").write_text(os.environ["LD_LIBRARY_PATH"])
    return 0
"""


@pytest.fixture
def context(tmp_path: Path) -> Context:
    (tmp_path / "scratch").mkdir()
    model = write(network(), tmp_path / "model.onnx")
    return Context(tmp_path / "bundle", tmp_path / "scratch", {"onnx": (model,)}, SHAPE)


@pytest.fixture
def build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    def make(module: str = THIS, code: str = CONVERTS, place: str = "bin") -> Path:
        folder = tmp_path / "tnn"
        (folder / place).mkdir(parents=True)
        (folder / place / module).write_bytes(b"")
        (folder / place / "onnx2tnn.py").write_text(code)
        monkeypatch.setenv(VARIABLE, str(folder))
        return folder

    return make


@pytest.mark.parametrize("place", ["", "build/tools/onnx2tnn/onnx-converter"])
def test_made_from_one_image(context: Context, build: Callable[..., Path], place: str) -> None:
    folder = build(place=place)
    files = tnn(context)
    assert {role: path.name for role, path in files.items()} == {"model": "model.tnnproto", "weights": "model.tnnmodel"}
    given = onnx.load(files["weights"])
    assert given.graph.input[0].type.tensor_type.shape.dim[0].dim_value == 1
    assert files["model"].read_text().startswith(f"{folder / 'lib'}:{folder}")


def test_nothing_to_convert_with(context: Context, build: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    with pytest.raises(FormatFailed, match=r"needs a build of TNN .* name its folder in EDGERECALL_TNN_DIR"):
        tnn(context)
    folder = build("onnx2tnn.cpython-32-x86.so")
    with pytest.raises(FormatFailed, match=r"cpython-32-x86\.so is built for Python 3\.2, and there is none here"):
        tnn(context)
    shutil.rmtree(folder)
    build("onnx2tnn.cpython-thirty.so")
    with pytest.raises(FormatFailed, match=r"no onnx2tnn\.cpython-\*\.so in .*tnn: build TNN with -DTNN_ONNX2TNN"):
        tnn(context)


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("def convert(*all): print('error: no HardSwish'); return -1", r"failed \(exit code 1\): error: no HardSwish"),
        ("def convert(*all): print('nothing'); return 0", r"wrote no model\.tnnproto: nothing"),
        ("import os; os.abort()", r"failed \(signal 6\)"),
    ],
)
def test_a_converter_that_fails(context: Context, build: Callable[..., Path], code: str, reason: str) -> None:
    build(code=code)
    with pytest.raises(FormatFailed, match=f"TNN's converter {reason}"):
        tnn(context)
    assert not (context.folder / "tnn").exists()


def test_it_computes_in_float32_alone() -> None:
    with pytest.raises(RuntimeUnavailable, match="'tnn' does not run bf16: ask for fp32"):
        open_files("tnn", {}, ModelIO("x", SHAPE, 8), RunOptions(precision="bf16"))
