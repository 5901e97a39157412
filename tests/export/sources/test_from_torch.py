"""From a PyTorch model, by the documentation's own lines, to a bundle that gives what torch gave."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgerecall.runtimes.bundle.bundle import Bundle
from edgerecall.runtimes.embed.replicas import open_predictor

Run = Callable[..., subprocess.CompletedProcess[str]]
FORMATS = "onnx,openvino,ncnn"


@pytest.fixture(scope="session")
def torch_python(root: Path) -> Path:
    """An interpreter that has torch, which the package never needs: no test of it is skipped."""
    python = root / "build" / "torch-env" / "bin" / "python"
    if not python.is_file():
        pytest.fail("no torch: run 'make build/torch-env/installed'")
    return python


def documented(root: Path) -> str:
    """The lines that export a model."""
    (found,) = re.findall(r"```python\n(.*?)```", (root / "docs" / "onnx.md").read_text(), re.DOTALL)
    return str(found)


@pytest.mark.parametrize(
    ("name", "how"),
    [("resnet18", "as documented"), ("resnet18", "static"), ("efficientnet_lite0", "as documented")],
)
def test_the_documented_way(
    edgerecall: Run, root: Path, tmp_path: Path, data: Path, torch_python: Path, name: str, how: str
) -> None:
    model = tmp_path / "model.onnx"
    script = root / "tests" / "support" / "networks" / "torch_models.py"
    command = [torch_python, script, name, "static" if how == "static" else documented(root), model]
    made = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    preprocess = "imagenet" if how == "static" else tmp_path / "transform.txt"
    source = ("--model", model, "--preprocess", preprocess, "--images", data, "--golden", 3)
    result = edgerecall("export", tmp_path / "bundle", *source, "--formats", FORMATS)
    assert result.returncode == 0, result.stderr
    bundle = Bundle.open(tmp_path / "bundle")
    assert [artifact.name for artifact in bundle.manifest.artifacts] == FORMATS.split(",")
    torch = np.load(f"{model}.npz")
    for runtime in ("onnxruntime", "openvino", "ncnn"):
        with open_predictor(bundle, runtime) as predictor:
            embeddings = predictor.embed(torch["tensors"])
        scale = np.abs(torch["embeddings"]).max()
        np.testing.assert_allclose(embeddings / scale, torch["embeddings"] / scale, atol=5e-5)
