"""A bundle with two ONNX artifacts, the exported one and one made by hand with float16 weights: both are rows."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import edgerecall
from edgerecall.runtimes.bundle.bundle import Bundle
from edgerecall.runtimes.bundle.manifest import Artifact, Recipe, describe_file
from edgerecall.runtimes.core.errors import BundleError, InputError

pytestmark = pytest.mark.runtime
Run = Callable[..., subprocess.CompletedProcess[str]]


def float16_weights(source: Path, target: Path) -> None:
    """Every float32 constant as float16, widened by a Cast before its use."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    model = onnx.load(str(source))
    nodes, narrowed = [], 0
    for node in model.graph.node:  # paddle2onnx writes weights as constants
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            array = numpy_helper.to_array(node.attribute[0].t)
            if array.dtype == np.float32 and array.size >= 8:
                name, narrowed = node.output[0], narrowed + 1
                narrow = numpy_helper.from_array(array.astype(np.float16))
                nodes.append(helper.make_node("Constant", [], [f"{name}_fp16"], value=narrow))
                nodes.append(helper.make_node("Cast", [f"{name}_fp16"], [name], to=TensorProto.FLOAT))
                continue
        nodes.append(node)
    assert narrowed > 2
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.save(model, str(target))


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory, device_bundle: Path) -> Path:
    """The golden bundle with a second ONNX artifact."""
    root = tmp_path_factory.mktemp("two") / "bundle"
    shutil.copytree(device_bundle, root)
    path = root / "onnx-fp16" / "model.onnx"
    path.parent.mkdir()
    float16_weights(root / "onnx" / "model.onnx", path)
    bundle = Bundle.open(root)
    second = Artifact(
        name="onnx-fp16",
        runtime="onnxruntime",
        targets=("any",),
        quantisation="fp16",
        recipe=Recipe(scheme="float16 weights, widened", tool="tests", version="1"),
        files=(describe_file(root, path, "model"),),
    )
    first = [one for one in bundle.manifest.artifacts if one.runtime == "onnxruntime"]
    Bundle(root, bundle.manifest.model_copy(update={"artifacts": (*first, second)})).save()
    return root


def test_both_are_listed_and_verified(both: Path, edgerecall: Run) -> None:
    result = edgerecall("verify", both, "--runtime", "onnxruntime,cpp-onnxruntime", env={"COLUMNS": "200"})
    assert result.returncode == 0, result.stdout
    for runtime in ("onnxruntime", "cpp-onnxruntime"):
        cells = [[cell.strip() for cell in line.split("│")] for line in result.stdout.splitlines()]
        lines = [line for line in cells if line[0] == runtime]
        assert [line[1] for line in lines] == ["fp32", "fp16"] and all(line[-1] == "ok" for line in lines)
        errors = [float(line[5]) for line in lines]
        assert errors[0] < 1e-5 < errors[1] < 5e-3


def test_both_are_rows_of_the_bench(both: Path, tmp_path: Path, edgerecall: Run) -> None:
    options = ("--samples", 10, "--rounds", 2, "--json", tmp_path / "r.json")
    result = edgerecall("bench", both, "--images", both / "golden", *options)
    assert result.returncode == 0, result.stdout + result.stderr
    rows = json.loads((tmp_path / "r.json").read_text())["rows"]
    assert [(row["name"], row["artifact"], row["quantisation"], row["status"]) for row in rows] == [
        ("onnxruntime", "onnx", "fp32", "ok"),
        ("onnxruntime fp16", "onnx-fp16", "fp16", "ok"),
    ]
    assert rows[0]["cosine_min"] == pytest.approx(1.0, abs=1e-12) and 0.999 < rows[1]["cosine_min"] < 1 - 1e-9
    assert rows[0]["model_sha256"] != rows[1]["model_sha256"]
    only = edgerecall("bench", both, "--images", both / "golden", *options, "--quantization", "fp16")
    assert only.returncode == 0, only.stderr
    found = json.loads((tmp_path / "r.json").read_text())
    assert [row["name"] for row in found["rows"]] == ["onnxruntime fp16"]
    assert found["baseline"] == "onnxruntime in fp32, as the bundle says"
    refused = edgerecall("bench", both, "--images", both / "golden", *options, "--quantisation", "int4")
    assert refused.returncode == 2 and "quantisation: expected one of fp32, fp16, int8, got 'int4'" in refused.stderr


def test_python_takes_the_one_that_is_named(both: Path) -> None:
    images = Bundle.open(both).golden()[0]
    with edgerecall.load(both) as plain, edgerecall.load(both, quantisation="fp16") as narrow:
        a, b = plain.embed_images(images), narrow.embed_images(images)
    assert 0 < np.abs(a - b).max() < 5e-3
    with pytest.raises(BundleError, match="no int8 artifact for runtime 'onnxruntime'"):
        edgerecall.load(both, quantisation="int8")


def test_a_wrong_artifact_fails_whatever_it_is_called(both: Path, tmp_path: Path) -> None:
    """The fp32 artifact's tolerance is not that of the fp16 one: halved weights under the name fp32 are seen."""
    from edgerecall.runtimes.embed.verify import verify_runtime
    from edgerecall.runtimes.predictor.interface import RunOptions

    shutil.copytree(both, tmp_path / "b")
    bundle = Bundle.open(tmp_path / "b")
    as_fp32 = bundle.manifest.artifacts[-1].model_copy(update={"quantisation": "fp32"})
    liar = Bundle(bundle.root, bundle.manifest.model_copy(update={"artifacts": (as_fp32,)}))
    verdict = verify_runtime(liar, "onnxruntime", RunOptions())
    assert verdict.problem is not None and "embeddings differ" in verdict.problem
    with pytest.raises(InputError, match="precision"):
        RunOptions(precision="int8")
