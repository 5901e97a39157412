"""Export: every format from a checkpoint, and models that users bring."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgerecall.export.exporter import Report
from edgerecall.runtimes.backends.paddle_model import read_program
from edgerecall.runtimes.bundle.bundle import Bundle
from edgerecall.runtimes.core.errors import InputError
from edgerecall.runtimes.preprocess.transform_ops import read_preprocess

Run = Callable[..., subprocess.CompletedProcess[str]]
TRACE = Path(__file__).with_name("trace_model.py")
PREPROCESS = """
RecPreProcess:
  transform_ops:
    - ResizeImage: {size: [64, 64], backend: cv2}
    - NormalizeImage: {scale: 0.00392157, mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225], order: hwc}
    - ToCHWImage:
"""


def trace(name: str, folder: Path, pir: bool) -> Path:
    """A Paddle inference model as a user would have it."""
    environment = {**os.environ, "FLAGS_enable_pir_api": str(int(pir))}
    command = [sys.executable, str(TRACE), name, str(folder / "inference")]
    subprocess.run(command, env=environment, check=True, capture_output=True)
    return folder


def noted(problems: dict[str, str | None]) -> Report:
    """A report that keeps each format's problem."""
    return lambda name, problem, unchecked=None: problems.__setitem__(name, problem)


def export(edgerecall: Run, tmp_path: Path, data: Path, model: Path, *more: str) -> subprocess.CompletedProcess[str]:
    (tmp_path / "preprocess.yaml").write_text(PREPROCESS)
    arguments = ["--model", model, "--preprocess", tmp_path / "preprocess.yaml", "--images", data]
    return edgerecall("export", tmp_path / "bundle", *arguments, *more)


@pytest.mark.cpu_sensitive
def test_every_format_of_a_checkpoint(real_bundle: Path, lite_ready: None) -> None:
    manifest = Bundle.open(real_bundle).manifest
    names = ["paddle", "paddle-pdmodel", "onnx", "openvino", "lite-x86", "lite-armv8", "lite-armv7", "mnn", "litert"]
    assert [artifact.name for artifact in manifest.artifacts] == names and manifest.skipped == ()
    for artifact in manifest.artifacts:
        if artifact.name in ("lite-armv8", "lite-armv7"):
            assert artifact.check is None and "this machine is x86_64" in str(artifact.unchecked)
        else:
            assert artifact.check is not None and artifact.check.max_abs_error <= artifact.check.tolerance
    assert manifest.source["kind"] == "checkpoint" and len(manifest.golden_images) == 8
    assert "edgerecall export" in manifest.command and "paddlepaddle" in manifest.tools


@pytest.mark.cpu_sensitive
def test_golden_is_the_training_frameworks_own_output(real_bundle: Path, trained: Path) -> None:
    import paddle

    from edgerecall.train.config.training import load_config
    from edgerecall.train.network import EmbeddingNetwork
    from edgerecall.train.state.checkpoint import load_network

    network = EmbeddingNetwork(load_config(trained / "train.yaml").Arch)
    load_network(network, trained / "run" / "latest")
    network.eval()
    _, tensors, embeddings = Bundle.open(real_bundle).golden()
    np.testing.assert_allclose(network(paddle.to_tensor(tensors)).numpy(), embeddings, rtol=1e-5, atol=1e-5)


@pytest.mark.cpu_sensitive
@pytest.mark.parametrize(("name", "change"), [("mobilenet_v2", "relu6_threshold"), ("flatten", "flatten_to_reshape")])
def test_a_users_model_reaches_lite(
    edgerecall: Run, tmp_path: Path, data: Path, lite_ready: None, name: str, change: str
) -> None:
    """relu6 and flatten crash Paddle Lite's optimiser without our passes; with them the output is the same."""
    model = trace(name, tmp_path / "model", pir=False)
    operations = {op.type for op in read_program(model / "inference.pdmodel").blocks[0].ops}
    assert {"mobilenet_v2": "relu6", "flatten": "flatten_contiguous_range"}[name] in operations
    result = export(edgerecall, tmp_path, data, model)
    assert result.returncode == 0, result.stdout + result.stderr
    told = result.stdout + result.stderr
    assert "lite-armv8: made, unchecked: " in told and "lite-armv8: made, matches" not in told
    bundle = Bundle.open(tmp_path / "bundle")
    made = {artifact.name: artifact for artifact in bundle.manifest.artifacts}
    assert set(made) == {"paddle-pdmodel", "onnx", "openvino", "lite-x86", "lite-armv8", "lite-armv7", "mnn", "litert"}
    assert bundle.manifest.source["lite_passes"][change] > 0
    check = made["lite-x86"].check
    scale = np.abs(bundle.golden()[2]).max()
    assert check is not None and check.max_abs_error <= 1e-5 * scale and scale > 1e-3
    assert [skipped.name for skipped in bundle.manifest.skipped] == ["paddle"]


def test_a_pir_only_model_says_why_lite_is_missing(edgerecall: Run, tmp_path: Path, data: Path) -> None:
    result = export(edgerecall, tmp_path, data, trace("flatten", tmp_path / "model", pir=True))
    assert result.returncode == 0, result.stdout + result.stderr
    bundle = Bundle.open(tmp_path / "bundle")
    assert {artifact.name for artifact in bundle.manifest.artifacts} == {"paddle", "onnx", "openvino", "mnn", "litert"}
    reasons = {skipped.name: skipped.reason for skipped in bundle.manifest.skipped}
    assert "FLAGS_enable_pir_api=0" in reasons["lite-x86"]


def test_a_named_format_that_fails_is_exit_code_1_and_bad_names_2(
    edgerecall: Run, tmp_path: Path, data: Path, one_line: Callable[..., None]
) -> None:
    model = trace("flatten", tmp_path / "model", pir=True)
    assert export(edgerecall, tmp_path, data, model, "--formats", "onnx,lite-x86").returncode == 1
    one_line(export(edgerecall, tmp_path, data, model, "--formats", "onix", "--force"), 2, "did you mean 'onnx'?")
    one_line(export(edgerecall, tmp_path, data, model, "--formats", "onnx"), 2, "exists already")


def test_without_a_sidecar_lite_is_listed_with_the_remedy(edgerecall: Run, trained: Path, tmp_path: Path) -> None:
    arguments = ["-c", trained / "train.yaml", "--checkpoint", trained / "run" / "latest", "--formats", "onnx,lite-x86"]
    named = {"EDGERECALL_LITE_PYTHON": "/bin/false"}
    result = edgerecall("export", tmp_path / "b", *arguments, env=named)
    assert result.returncode == 1
    reason = json.loads((tmp_path / "b" / "bundle.json").read_text())["skipped"][0]["reason"]
    assert "cannot import paddlelite" in reason


def test_onnx_is_converted_in_the_sidecar_of_paddle2onnx(edgerecall: Run, trained: Path, tmp_path: Path) -> None:
    """A stand-in for the sidecar: this interpreter under another name, with a note of what it was started for."""
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\necho "$3" | head -c 4000 >> {tmp_path}/calls\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    arguments = ["-c", trained / "train.yaml", "--checkpoint", trained / "run" / "latest", "--formats", "onnx"]
    named = {"EDGERECALL_PADDLE2ONNX_PYTHON": str(python)}
    result = edgerecall("export", tmp_path / "b", *arguments, env=named)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "edgerecall.export.steps" in (tmp_path / "calls").read_text()
    manifest = json.loads((tmp_path / "b" / "bundle.json").read_text())
    assert [artifact["runtime"] for artifact in manifest["artifacts"]] == ["onnxruntime"]
    refused = edgerecall("export", tmp_path / "c", *arguments, env={"EDGERECALL_PADDLE2ONNX_PYTHON": "/bin/false"})
    assert refused.returncode != 0 and "cannot import paddle2onnx" in refused.stdout + refused.stderr


@pytest.mark.cpu_sensitive
def test_a_perturbed_artifact_is_left_out(real_bundle: Path, trained: Path, tmp_path: Path, data: Path) -> None:
    """A converter that changes a weight by a thousandth is caught before the bundle is there."""
    from edgerecall.export import exporter
    from edgerecall.export.sources.paddle_source import from_model

    (tmp_path / "p.yaml").write_text(PREPROCESS)
    source = from_model(trace("flatten", tmp_path / "model", pir=True), read_preprocess(tmp_path / "p.yaml"))
    honest = exporter.make_artifact

    def faulty(name, context, quantisation):  # type: ignore[no-untyped-def]
        if name == "onnx":
            import onnx
            from onnx import numpy_helper

            artifact = honest(name, context, quantisation)
            path = context.folder / artifact.files[0].path
            model = onnx.load(str(path))
            constants = [a.t for node in model.graph.node for a in node.attribute if node.op_type == "Constant"]
            tensor = next(t for t in (*model.graph.initializer, *constants) if len(t.dims) == 4)
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * 1.001, tensor.name))
            onnx.save(model, str(path))
            files = (exporter.describe_file(context.folder, path, "model"),)
            return artifact.model_copy(update={"files": files})
        return honest(name, context, quantisation)

    images = sorted(data.glob("*_final/*.JPG"))[:4]
    problems: dict[str, str | None] = {}
    exporter.make_artifact = faulty
    try:
        bundle = exporter.export_bundle(tmp_path / "b", source, images, ["paddle", "onnx"], "tests", noted(problems))
    finally:
        exporter.make_artifact = honest
    assert problems["paddle"] is None and "embeddings differ from the reference" in str(problems["onnx"])
    assert [artifact.name for artifact in bundle.manifest.artifacts] == ["paddle"]
    assert not (tmp_path / "b" / "onnx").exists()


def test_what_a_failed_format_wrote_is_removed(real_bundle: Path, tmp_path: Path, data: Path) -> None:
    from edgerecall.export import exporter
    from edgerecall.export.context import FormatFailed
    from edgerecall.export.formats import onnx_format
    from edgerecall.export.sources.paddle_source import from_model

    (tmp_path / "p.yaml").write_text(PREPROCESS)
    source = from_model(real_bundle / "paddle", read_preprocess(tmp_path / "p.yaml"))

    def torn(context):  # type: ignore[no-untyped-def]
        (context.place("onnx") / "model.onnx").write_text("half")
        raise FormatFailed("torn")

    images = sorted(data.glob("*_final/*.JPG"))[:2]
    honest, onnx_format.onnx = onnx_format.onnx, torn
    try:
        exporter.export_bundle(tmp_path / "b", source, images, ["paddle", "onnx"], "tests", noted({}))
    finally:
        onnx_format.onnx = honest
    assert sorted(path.name for path in (tmp_path / "b").iterdir()) == ["bundle.json", "golden", "paddle"]


@pytest.mark.parametrize("content", [b"garbage", b""])
def test_a_broken_model_is_one_line(
    edgerecall: Run, tmp_path: Path, data: Path, one_line: Callable[..., None], content: bytes
) -> None:
    for name in ("inference.pdmodel", "inference.pdiparams"):
        (tmp_path / "model").mkdir(exist_ok=True)
        (tmp_path / "model" / name).write_bytes(content)
    one_line(export(edgerecall, tmp_path, data, tmp_path / "model"), 2, "inference.pdmodel")
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize("pir", [True, False])
def test_preprocessing_of_another_size(
    edgerecall: Run, tmp_path: Path, data: Path, one_line: Callable[..., None], real_bundle: Path, pir: bool
) -> None:
    model = real_bundle / ("paddle" if pir else "paddle-pdmodel")
    (tmp_path / "preprocess.yaml").write_text(PREPROCESS.replace("[64, 64]", "[96, 80]"))
    arguments = ["--model", model, "--preprocess", tmp_path / "preprocess.yaml", "--images", data]
    result = edgerecall("export", tmp_path / "bundle", *arguments)
    one_line(result, 2, "the model takes 3 x 64 x 64, the preprocessing gives 3 x 80 x 96")


def test_force_replaces_only_a_bundle(
    edgerecall: Run, tmp_path: Path, data: Path, one_line: Callable[..., None], real_bundle: Path
) -> None:
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "thesis.txt").write_text("years")
    result = export(edgerecall, tmp_path, data, real_bundle / "paddle", "--formats", "paddle", "--force")
    one_line(result, 2, "holds no bundle.json and is not replaced")
    assert (tmp_path / "bundle" / "thesis.txt").exists()


def test_a_file_that_is_no_program(tmp_path: Path) -> None:
    (tmp_path / "x.pdmodel").write_bytes(b"\x01\x02 no protobuf")
    with pytest.raises(InputError, match=r"not a \.pdmodel program"):
        read_program(tmp_path / "x.pdmodel")
