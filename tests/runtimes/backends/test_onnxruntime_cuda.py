"""ONNX Runtime on a GPU, as far as a machine without one tells: it never computes on the CPU instead."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from fake_cuda import fake_nvml
from small_onnx import DIM, SIDE, network, write

from edgerecall.runtimes.backends import onnxruntime_cuda_predictor
from edgerecall.runtimes.backends.onnxruntime_cuda_predictor import CUDA, OnnxRuntimeCudaPredictor
from edgerecall.runtimes.backends.onnxruntime_predictor import OnnxRuntimePredictor
from edgerecall.runtimes.core.errors import RuntimeFailed, RuntimeUnavailable
from edgerecall.runtimes.predictor.interface import ExecutionRecord, ModelIO, RunOptions
from edgerecall.runtimes.predictor.registry import open_files

Run = Callable[..., subprocess.CompletedProcess[str]]
OneLine = Callable[..., None]
IO = ModelIO("images", (3, SIDE, SIDE), DIM)
RUNTIME = "onnxruntime-cuda"

pytestmark = pytest.mark.skipif(CUDA in onnxruntime.get_available_providers(), reason="onnxruntime-gpu is installed")


@pytest.fixture
def model(tmp_path: Path) -> dict[str, str]:
    return {"model": str(write(network(), tmp_path / "model.onnx"))}


def test_a_cpu_build_is_no_gpu(model: dict[str, str]) -> None:
    with pytest.raises(
        RuntimeUnavailable, match="needs onnxruntime-gpu, and this onnxruntime is a CPU build: run 'pip"
    ):
        open_files(RUNTIME, model, IO, RunOptions())
    with pytest.raises(RuntimeUnavailable, match="ask for fp32 or tf32"):
        open_files(RUNTIME, model, IO, RunOptions(precision="bf16"))


def test_a_session_that_falls_back_is_refused(model: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """As onnxruntime-gpu does where CUDA's libraries are not there: the provider is known, the session is the CPU's."""
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA, "CPUExecutionProvider"])
    monkeypatch.setitem(sys.modules, "pynvml", fake_nvml())
    with pytest.raises(RuntimeUnavailable, match=r"fell back to the CPU: .*cannot open shared object file"):
        open_files(RUNTIME, model, IO, RunOptions())


def test_a_provider_that_fails_in_mid_run_fails(model: dict[str, str], capfd: pytest.CaptureFixture[str]) -> None:
    """Left to itself ONNX Runtime would make the session anew, on the CPU, and go on."""
    from onnxruntime.capi import _pybind_state

    class Failing:
        def __init__(self, real: Any) -> None:
            self.real = real

        def run(self, *_: Any) -> Any:
            raise _pybind_state.EPFail("CUDA failure 700")

        def __getattr__(self, name: str) -> Any:
            return getattr(self.real, name)

    with open_files("onnxruntime", model, IO, RunOptions()) as predictor:
        session: Any = predictor.runtime_object()
        session._sess = Failing(session._sess)
        with pytest.raises(RuntimeFailed, match="onnxruntime: the inference failed: CUDA failure 700"):
            predictor.embed(np.zeros((1, 3, SIDE, SIDE), np.float32))
    assert capfd.readouterr().out == ""


@pytest.fixture(autouse=True)
def all_visible(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the machine hides."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def test_layers_that_the_cpu_fused_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    told = ExecutionRecord("fp32", "a profile", {"Conv CUDAExecutionProvider": 3, "FusedGemm CPUExecutionProvider": 1})
    monkeypatch.setattr(OnnxRuntimePredictor, "execution_record", lambda *_: told)
    predictor = OnnxRuntimeCudaPredictor.__new__(OnnxRuntimeCudaPredictor)
    found = predictor.execution_record(np.zeros(1))
    assert found is not None and found.precision == "fp32+cpu"


@pytest.mark.parametrize(("asked", "expected"), [("fp32", "fp32"), ("tf32", "tf32")])
def test_what_ran_is_what_the_session_was_opened_with(
    model: dict[str, str], monkeypatch: pytest.MonkeyPatch, asked: str, expected: str
) -> None:
    """A real session, of the CPU: its profile names its nodes, and where they ran counts."""
    opened: list[Any] = []

    def providers(predictor: Any) -> list[str]:
        opened.append(real(predictor)[0])
        return ["CPUExecutionProvider"]

    real = OnnxRuntimeCudaPredictor._providers
    monkeypatch.setattr(OnnxRuntimeCudaPredictor, "_providers", providers)
    monkeypatch.setattr(onnxruntime_cuda_predictor, "CUDA", "CPUExecutionProvider")
    monkeypatch.setitem(sys.modules, "pynvml", fake_nvml())
    with open_files(RUNTIME, model, IO, RunOptions(precision=asked)) as predictor:
        record = predictor.execution_record(np.zeros((1, 3, SIDE, SIDE), np.float32))
        assert predictor.info.precision == expected and predictor.info.device == "gpu"
        assert predictor.info.detail["gpu"] == "A GPU (8.7)"
    assert opened[0][1] == {"device_id": 0, "use_tf32": int(asked == "tf32")}, "TF32 is on unless it is told not to be"
    assert isinstance(record, ExecutionRecord) and record.precision == f"{expected}+cpu", record


def test_the_command_line_says_so(
    edgerecall: Run, real_bundle: Path, root: Path, data: Path, tmp_path: Path, one_line: OneLine
) -> None:
    options = ("--images", data, "--samples", 4, "--rounds", 2, "--limit", 12, "--json", tmp_path / "bench.json")
    runtimes = f"onnxruntime,{RUNTIME}"
    result = edgerecall("bench", real_bundle, "--runtime", runtimes, "--precision", "all", *options)
    assert result.returncode == 1, result.stderr
    rows = {row["name"]: row for row in json.loads((tmp_path / "bench.json").read_text())["rows"]}
    assert rows["onnxruntime fp32"]["status"] == "ok" and set(rows) == {
        f"{runtime} {precision}" for runtime in ("onnxruntime", RUNTIME) for precision in ("fp32", "tf32")
    }
    assert rows[f"{RUNTIME} tf32"]["status"] == "missing" and "CPU build" in rows[f"{RUNTIME} fp32"]["reason"]
    config = root / "configs" / "inference_rec.yaml"
    given = (f"Global.infer_imgs={data / 'mug_final'}", f"Global.rec_inference_model_dir={real_bundle}")
    chosen = [part for one in (*given, "Global.runtime=onnxruntime", "Global.use_gpu=True") for part in ("-o", one)]
    one_line(edgerecall("predict", "-c", config, *chosen), 2, "needs onnxruntime-gpu")
