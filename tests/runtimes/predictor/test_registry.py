"""Runtimes describe themselves: one more, in one file of somebody else's package, is everywhere."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgerecall.runtimes.bundle.bundle import Bundle
from edgerecall.runtimes.core.errors import InputError
from edgerecall.runtimes.predictor.backend import Backend
from edgerecall.runtimes.predictor.interface import Predictor, predictor_class
from edgerecall.runtimes.predictor.precision import EXECUTIONS, QUANTISATIONS, precision_problem, tolerance
from edgerecall.runtimes.predictor.registry import all_names, backend, core_backends, found, markdown_table, names
from edgerecall.runtimes.sidecars.sidecar import SIDECARS

Run = Callable[..., subprocess.CompletedProcess[str]]
TOY = '''
"""A runtime that a user adds: the fake's artifacts, by another name."""

from edgerecall.runtimes.backends.fake_predictor import FakePredictor
from edgerecall.runtimes.core.versions import Package
from edgerecall.runtimes.predictor.backend import Backend


class ToyPredictor(FakePredictor):
    def __init__(self, files, io, options=None):
        super().__init__(files, io, options)
        self.info = type(self.info)("toy", "7", "fp32", 1)


BACKEND = Backend(
    name="toy",
    predictor=f"{__name__}:ToyPredictor",
    title="A toy",
    package=Package("toy_runtime_package", "toy-runtime-package", ""),
    imports="json",
    artifacts="fake",
    file_format="JSON",
    tolerance={"fp32": 1e-5},
    purpose="play",
)
'''


@pytest.fixture
def toy(tmp_path: Path) -> dict[str, str]:
    """The environment in which a distribution with the toy is installed."""
    folder = tmp_path / "site"
    about = folder / "toy_runtime-1.0.dist-info"
    about.mkdir(parents=True)
    (folder / "toy_backend.py").write_text(TOY)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-runtime\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[edgerecall.backends]\ntoy = toy_backend:BACKEND\n")
    return {"PYTHONPATH": str(folder)}


def test_one_file_makes_a_runtime(
    toy: dict[str, str], fake_bundle: Callable[..., Bundle], data: Path, tmp_path: Path, edgerecall: Run
) -> None:
    """In bench --runtime all, doctor, verify, why and the table of the docs."""
    bundle = fake_bundle().root
    report = tmp_path / "bench.json"
    options = ("--samples", 4, "--rounds", 2, "--limit", 12, "--json", report)
    result = edgerecall("bench", bundle, "--images", data, "--runtime", "all", *options, env=toy)
    assert result.returncode == 0, result.stderr
    rows: list[dict[str, Any]] = json.loads(report.read_text())["rows"]
    told = [(row["runtime"], row["status"], row["version"]) for row in rows]
    assert told == [("toy", "ok", "7"), ("fake", "ok", "1")]
    result = edgerecall("verify", bundle, env=toy)
    assert result.returncode == 0 and "toy" in result.stdout, result.stdout
    result = edgerecall("why", bundle, "--a", "fake", "--b", "toy", env=toy)
    assert result.returncode == 0 and "toy" in result.stdout, result.stderr
    findings = json.loads(edgerecall("doctor", "--json", env=toy).stdout)
    line = next(one for one in findings if one["what"] == "toy-runtime-package")
    assert line["purpose"] == "play" and line["state"] == "missing"
    assert line["fix"] == "pip install --no-deps toy-runtime-package"
    code = "from edgerecall.runtimes.predictor.registry import markdown_table; print(markdown_table())"
    environment = {**os.environ, **toy}
    command = [sys.executable, "-c", code]
    table = subprocess.run(command, capture_output=True, text=True, check=False, env=environment).stdout
    assert "| `toy` | A toy | toy-runtime-package | JSON | fp32 | fp32 |" in table
    # Without the distribution it is no runtime.
    refused = edgerecall("bench", bundle, "--images", data, "--runtime", "toy")
    assert refused.returncode == 2 and "runtime: no 'toy'" in refused.stderr


def test_a_broken_entry_point_stops_nothing(toy: dict[str, str], edgerecall: Run) -> None:
    for text, reason in (
        ("raise RuntimeError('two\\nlines')", "RuntimeError: two"),
        ("BACKEND = 7", "TypeError"),
        (TOY.replace('name="toy"', 'name="onnxruntime"'), "there is a runtime 'onnxruntime' already"),
        (TOY.replace('name="toy"', 'name="to:y"'), "expected a name without ':'"),
    ):
        (Path(toy["PYTHONPATH"]) / "toy_backend.py").write_text(text)
        result = edgerecall("doctor", "--json", env=toy)
        assert result.returncode == 0, result.stderr
        line = next(one for one in json.loads(result.stdout) if one["what"] == "entry point toy")
        assert reason in line["state"]


def test_descriptions_hold() -> None:
    for one in found().backends.values():
        assert issubclass(predictor_class(one), Predictor)
        assert set(one.quantisations) <= set(QUANTISATIONS) and set(one.executions) <= set(EXECUTIONS)
        assert set(one.tolerance) >= {*one.quantisations, *one.executions}
        assert one.sidecar in ("", *SIDECARS) and one.artifacts in found().backends
        assert one.name == "fake" or ((one.title != one.name or one.name == "ncnn") and one.file_format)
    assert not found().broken
    assert {one.artifacts for one in core_backends()} == {
        *("onnxruntime", "openvino", "ncnn", "mnn", "tnn", "lite", "paddle")
    }
    assert all_names()[:5] == ("paddle", "onnxruntime", "openvino", "lite", "ncnn")
    assert not any(name.startswith("cpp-") for name in all_names()) and "fake" not in names()


def test_an_unknown_runtime_is_told_what_is_like_it() -> None:
    with pytest.raises(InputError, match=r"runtime: no .native:openvino.; did you mean .(cpp-)?openvino."):
        backend("native:openvino")
    with pytest.raises(ValueError, match="expected a name without ':'"):
        Backend(name="a:b", predictor="x:y")


def test_the_readme_s_table_is_this_one(root: Path) -> None:
    assert markdown_table() in (root / "README.md").read_text()


def test_precisions_requested_and_run() -> None:
    assert precision_problem("fp32", "fp32", "fp32") is None
    assert precision_problem("fp32", "bf16", "bf16") is None
    assert precision_problem("fp32", "bf16", "bf16+fp32") == "asked for bf16, runs bf16+fp32"
    assert precision_problem("fp32", "fp32", "unknown") == "asked for fp32, runs unknown"
    assert precision_problem("int8", "fp32", "fp32+int8") is None and precision_problem("int8", "fp32", "int8") is None
    assert precision_problem("int8", "fp32", "fp32") == "the artifact is int8, the runtime computes fp32"
    assert precision_problem("int8", "fp32", "bf16+int8") == "asked for fp32, runs bf16+int8"
    assert precision_problem("fp16", "fp32", "fp32") is None and precision_problem("fp16", "fp32", "fp16+fp32") is None
    table = {"fp32": 1.0, "int8": 5.0}
    assert tolerance(table, "fp32", "fp32") == 1.0 and tolerance(table, "int8", "fp32+int8") == 5.0
    assert tolerance(table, "fp32", "unknown") == 1.0
    with pytest.raises(InputError, match="no tolerance is known for 'int4'"):
        tolerance(table, "int4", "fp32")
