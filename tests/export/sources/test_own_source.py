"""TFLite and ncnn models of somebody else's: sealed as they are, and measured like the others."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from small_onnx import SIDE, network, write

from edgerecall.export.sources.normal_onnx import prepare
from edgerecall.runtimes.bundle.bundle import Bundle
from edgerecall.runtimes.core.files import sha256

pytestmark = pytest.mark.runtime
Run = Callable[..., subprocess.CompletedProcess[str]]
OneLine = Callable[..., None]
CONVERT = """
import onnx2tf
onnx2tf.convert(input_onnx_file_path={model!r}, output_folder_path={folder!r}, non_verbose=True,
                output_dynamic_range_quantized_tflite=True, quant_type="per-tensor")
"""


@pytest.fixture
def preprocess(real_bundle: Path, tmp_path: Path) -> Path:
    """What the bundle's images went through, as a user writes it down."""
    path = tmp_path / "preprocess.yaml"
    resize = {"ResizeImage": {"size": [64, 64], "interpolation": "bilinear", "backend": "pil"}}
    normalize = {"scale": 0.00392157, "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], "order": "hwc"}
    operators = [resize, {"NormalizeImage": normalize}, {"ToCHWImage": None}]
    path.write_text(json.dumps({"RecPreProcess": {"transform_ops": operators}}))
    return path


@pytest.fixture
def models(real_bundle: Path, tmp_path: Path) -> dict[str, Path]:
    """By runtime, the file that a user has."""
    from edgerecall.export.context import Context
    from edgerecall.export.formats.ncnn_format import ncnn

    bundle = Bundle.open(real_bundle)
    onnx = Path(bundle.files(bundle.artifact("onnxruntime"))["model"])
    (tmp_path / "scratch").mkdir()
    files = ncnn(Context(tmp_path / "made", tmp_path / "scratch", {"onnx": (onnx,)}, bundle.spec.input_shape))
    named = tmp_path / "theirs.ncnn.param"
    shutil.copyfile(files["model"], named)
    shutil.copyfile(files["weights"], named.with_suffix(".bin"))
    tflite = shutil.copyfile(bundle.files(bundle.artifact("litert"))["model"], tmp_path / "theirs.tflite")
    return {"litert": Path(tflite), "ncnn": named}


@pytest.mark.parametrize("runtime", ["litert", "ncnn"])
def test_all_the_way(
    runtime: str, models: dict[str, Path], preprocess: Path, data: Path, tmp_path: Path, edgerecall: Run
) -> None:
    target, report = tmp_path / "bundle", tmp_path / "bench.json"
    ask = ("export", target, "--model", models[runtime], "--preprocess", preprocess, "--images", data / "mug_final")
    result = edgerecall(*ask)
    assert result.returncode == 0 and f"{runtime}: made, matches the reference" in result.stderr, result.stderr
    bundle = Bundle.open(target)
    assert [one.name for one in bundle.manifest.artifacts] == [runtime] and bundle.manifest.skipped == ()
    assert bundle.manifest.source["form"] == runtime and bundle.manifest.source["sha256"] == sha256(models[runtime])
    assert sha256(Path(bundle.files(bundle.artifact(runtime))["model"])) == sha256(models[runtime]), "as it came"
    assert edgerecall("verify", target).returncode == 0
    result = edgerecall("bench", target, "--images", data, "--samples", 10, "--rounds", 2, "--json", report)
    rows = json.loads(report.read_text())["rows"]
    assert result.returncode == 0 and [row["runtime"] for row in rows] == [runtime], result.stderr
    assert edgerecall("why", target, "--b", runtime).returncode == 0
    result = edgerecall(*ask, "--formats", "onnx,all", "--force")
    assert result.returncode == 1 and f"the model comes in {runtime}'s own format" in " ".join(result.stderr.split())


def test_int8_is_told_as_such(preprocess: Path, data: Path, tmp_path: Path, edgerecall: Run) -> None:
    """Dynamic range: weights in int8, images and embeddings in float32."""
    onnx = tmp_path / "m.onnx"
    prepare(write(network(), tmp_path / "came.onnx"), onnx, (3, SIDE, SIDE), None)
    code = CONVERT.format(model=str(onnx), folder=str(tmp_path / "out"))
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    (model,) = (tmp_path / "out").glob("*dynamic_range_quant.tflite")
    preprocess.write_text(preprocess.read_text().replace("[64, 64]", f"[{SIDE}, {SIDE}]"))
    ask = ("export", tmp_path / "q", "--model", model, "--preprocess", preprocess, "--images", data / "mug_final")
    result = edgerecall(*ask)
    assert result.returncode == 0, result.stderr
    made = Bundle.open(tmp_path / "q").artifact("litert")
    assert made.quantisation == "int8" and made.recipe is None
    shown = edgerecall("verify", tmp_path / "q")
    assert shown.returncode == 0 and "int8" in shown.stdout, shown.stdout


def test_what_cannot_be_taken(
    models: dict[str, Path], preprocess: Path, data: Path, tmp_path: Path, edgerecall: Run, one_line: OneLine
) -> None:
    def export(model: Path) -> subprocess.CompletedProcess[str]:
        given = ("--model", model, "--preprocess", preprocess, "--images", data / "mug_final")
        return edgerecall("export", tmp_path / "none", *given)

    one_line(export(tmp_path / "absent.tflite"), 2, "absent.tflite: no such file")
    (tmp_path / "bad.tflite").write_bytes(b"garbage" * 50)
    one_line(export(tmp_path / "bad.tflite"), 2, "bad.tflite: litert cannot load the model")
    models["ncnn"].with_suffix(".bin").unlink()
    one_line(export(models["ncnn"]), 2, "expected theirs.ncnn.bin beside it")
    (tmp_path / "bad.param").write_text("7767517\n2 2\nInput x 0 1 x\nNoSuchLayer y 1 1 x y\n")
    (tmp_path / "bad.bin").write_bytes(b"")
    one_line(export(tmp_path / "bad.param"), 2, "bad.param: ncnn cannot load the model")
    preprocess.write_text(preprocess.read_text().replace("[64, 64]", "[32, 32]"))
    one_line(export(models["litert"]), 2, "expected float32 images 32 x 32, it takes float32 (64, 64, 3)")
    assert not (tmp_path / "none").exists()
