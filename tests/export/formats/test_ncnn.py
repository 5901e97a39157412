"""The ncnn format: made by name, float32 weights, and right in ncnn itself."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from many_threads import assert_threads_change_nothing, encoded

from edgerecall.export.context import Context, FormatFailed
from edgerecall.export.exporter import FORMATS, all_formats
from edgerecall.export.formats import ncnn_format
from edgerecall.runtimes.bundle.bundle import Bundle
from edgerecall.runtimes.core.errors import RuntimeUnavailable
from edgerecall.runtimes.embed.model import EmbeddingModel
from edgerecall.runtimes.predictor.interface import RunOptions
from edgerecall.runtimes.predictor.registry import open_files, tool_versions
from edgerecall.runtimes.worker.client import WorkerPredictor


def context(real_bundle: Path, folder: Path) -> Context:
    """Of a bundle that has an ONNX model already."""
    (folder / "bundle").mkdir()
    (folder / "scratch").mkdir()
    (folder / "bundle" / "onnx").symlink_to(real_bundle / "onnx")
    return Context(folder / "bundle", folder / "scratch", {}, Bundle.open(real_bundle).spec.input_shape)


@pytest.mark.cpu_sensitive
def test_matches_the_framework(real_bundle: Path, tmp_path: Path) -> None:
    bundle = Bundle.open(real_bundle)
    _, tensors, reference = bundle.golden()
    files = ncnn_format.ncnn(context(real_bundle, tmp_path))
    # Half the bytes would mean half precision.
    assert files["weights"].stat().st_size > 0.9 * sum(f.bytes for f in bundle.artifact("onnxruntime").files)
    for threads in (1, 2):
        options = RunOptions(threads=threads)
        with open_files("ncnn", {k: str(v) for k, v in files.items()}, bundle.spec.io, options) as predictor:
            got = predictor.embed(tensors)
            assert predictor.info.precision == "fp32" and predictor.info.threads == threads
        np.testing.assert_allclose(got, reference, rtol=0, atol=5e-5 * abs(reference).max())
    with pytest.raises(RuntimeUnavailable, match="ask for one of them"):
        open_files("ncnn", {}, bundle.spec.io, RunOptions(precision="fp16"))


def test_under_threads(real_bundle: Path, data: Path, tmp_path: Path) -> None:
    bundle = Bundle.open(real_bundle)
    files = {role: str(path) for role, path in ncnn_format.ncnn(context(real_bundle, tmp_path)).items()}
    predictors = [WorkerPredictor("ncnn", files, bundle.spec.io, RunOptions()) for _ in range(2)]
    with EmbeddingModel(bundle.spec, predictors, batch_size=4) as model:
        assert_threads_change_nothing(model, encoded(data))


def test_is_made_by_name_only() -> None:
    assert "ncnn" in FORMATS and "ncnn" not in all_formats("paddle")


def test_bundles_and_results_tell_its_versions() -> None:
    assert {"ncnn", "pnnx"} <= tool_versions().keys()


def test_without_the_converter(real_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(FormatFailed, match="pip install --no-deps pnnx"):
        ncnn_format.ncnn(context(real_bundle, tmp_path))
