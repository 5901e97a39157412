"""`ncnn-int8` and `ncnn-fp16` from the command line: made, verified, benched, raced."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from edgerecall.runtimes.bundle.bundle import Bundle
from edgerecall.runtimes.bundle.manifest import Artifact

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def quantised(trained: Path, data: Path, edgerecall: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Exported and quantised in one."""
    bundle = tmp_path_factory.mktemp("ncnn") / "bundle"
    source = ("-c", trained / "train.yaml", "--checkpoint", trained / "run" / "latest", "--formats", "onnx,ncnn")
    made = edgerecall("export", bundle, *source, "--quantize", "int8,fp16", "--calibrate", data)
    assert made.returncode == 0, made.stdout + made.stderr
    return bundle


def artifacts(bundle: Path) -> dict[str, Artifact]:
    return {one.name: one for one in Bundle.open(bundle).manifest.artifacts}


def test_artifacts_and_rows(quantised: Path, data: Path, edgerecall: Run, tmp_path: Path) -> None:
    made = artifacts(quantised)
    recipe = made["ncnn-int8"].recipe
    assert recipe is not None and recipe.tool == "ncnn" and len(recipe.calibration) > 32
    assert recipe.scheme == "ncnn, int8, per channel, Winograd's weights of 6 bits, percentile 99.99, biases corrected"
    assert made["ncnn-fp16"].size_bytes < 0.6 * made["ncnn"].size_bytes
    verified = edgerecall("verify", quantised, "--runtime", "ncnn", env={"COLUMNS": "200"})
    assert verified.returncode == 0, verified.stdout + verified.stderr
    assert sum(" ok" in line for line in verified.stdout.splitlines()) == 4, verified.stdout  # and the preprocessing
    out = tmp_path / "bench.json"
    options = ("--runtime", "ncnn", "--samples", "5", "--rounds", "2", "--json", out, "--max-recall-drop", "1")
    result = edgerecall("bench", quantised, "--images", data, *options, "--min-cosine", "0.5")
    assert result.returncode == 0, result.stdout + result.stderr
    rows = {row["quantisation"]: row for row in json.loads(out.read_text())["rows"]}
    assert {name: row["precision"] for name, row in rows.items()} == {
        "fp32": "fp32",
        "fp16": "fp32",
        "int8": "fp32+int8",
    }
    assert 0.9 < rows["int8"]["cosine_mean"] < rows["fp16"]["cosine_mean"]


def test_without_a_float_artifact(
    real_bundle: Path, data: Path, edgerecall: Run, one_line: Callable[..., None], tmp_path: Path
) -> None:
    shutil.copytree(real_bundle, tmp_path / "bundle")
    before = (tmp_path / "bundle" / "bundle.json").read_bytes()
    refused = edgerecall("quantize", tmp_path / "bundle", "--calibrate", data, "--artifacts", "ncnn-int8")
    assert refused.returncode == 2 and "no float32 artifact of ncnn to start from" in refused.stderr
    assert (tmp_path / "bundle" / "bundle.json").read_bytes() == before


def test_a_race(quantised: Path, data: Path, edgerecall: Run, tmp_path: Path) -> None:
    """With the sensitivity of its own layers."""
    bundle, out = tmp_path / "bundle", tmp_path / "race.json"
    shutil.copytree(quantised, bundle)
    lines = (data / "train_list.txt").read_text().splitlines()
    labels = sorted({int(line.rsplit(None, 1)[1]) for line in lines})
    for name, part in (("train", labels[: len(labels) // 2]), ("val", labels[len(labels) // 2 :])):
        kept = [line for line in lines if int(line.rsplit(None, 1)[1]) in part]
        (tmp_path / f"{name}_list.txt").write_text("\n".join(kept) + "\n")
    given = ["--calibrate", data, "--list", tmp_path / "train_list.txt", "--validate", data, "--force", "--json", out]
    given += ["--validate-list", tmp_path / "val_list.txt", "--max-recall-drop", "1", "--max-map-drop", "1"]
    raced = edgerecall("quantize", bundle, *given, "--artifacts", "ncnn-int8", env={"COLUMNS": "250"})
    assert raced.returncode == 0, raced.stdout + raced.stderr
    found = [one for one in json.loads(out.read_text())["entries"] if one["artifact"]]
    names = ["as given", "minmax", "first and last in float", "depthwise in float"]
    assert [one["name"] for one in found] == [*names, *(f"{share} % most sensitive in float" for share in (10, 25))]
    assert all(one["quantisation"] == "int8" for one in found)
    ran = [one for one in found if one["status"] != "failed"]
    assert all(one["precision"] == "fp32+int8" and one["speed"] for one in ran)
    assert len({one["recipe"] for one in ran}) == len(ran)
    # What a CPU trains differs from another's in its last digits, and so does what a recipe loses.
    lost = {one["name"]: one["reason"] for one in found if one not in ran}
    assert lost.keys() <= {"minmax"} and all("embeddings differ from the reference" in why for why in lost.values())
    manifest = Bundle.open(bundle).manifest
    assert "ncnn-int8" in {one.name for one in (*manifest.artifacts, *manifest.skipped)}
    assert manifest.source["race"]
