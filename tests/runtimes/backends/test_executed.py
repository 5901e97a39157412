"""What ran, from the runtimes' own records."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from bf16 import assert_told_truly, run_in_bf16

from edgerecall.runtimes.backends.onnxruntime_predictor import executed_by as executed_by_profile
from edgerecall.runtimes.bundle.bundle import Bundle
from edgerecall.runtimes.core.errors import RuntimeFailed, RuntimeUnavailable
from edgerecall.runtimes.embed.replicas import open_predictor
from edgerecall.runtimes.predictor.interface import RunOptions
from edgerecall.runtimes.predictor.onednn_log import executed_by
from edgerecall.runtimes.worker import client
from edgerecall.runtimes.worker.wire import SharedMemory

Make = Callable[..., Bundle]
MEMORY = "src:{0}:a:blocked:acdb::f0 wei:{0}:ap:blocked:Acdb16a::f0 bia:f32::blocked:a::f0 dst:{0}::blocked:acdb::f0"
LINE = "onednn_verbose,v1,primitive,exec,cpu,{kind},brgconv_1x1:avx512_core,forward,{memory},{attributes},alg,mb1"


def line(kind: str, dtype: str, attributes: str = "attr-post-ops:eltwise_relu") -> str:
    """A line of oneDNN's log."""
    return LINE.format(kind=kind, memory=MEMORY.format(dtype), attributes=attributes)


def test_onednn_log() -> None:
    info = "onednn_verbose,v1,info,cpu,isa:Intel AVX-512"
    found = executed_by([info, line("convolution", "f32"), line("convolution", "f32"), line("reorder", "bf16")])
    assert found is not None and found.precision == "fp32"
    assert found.operators == {"convolution f32 brgconv_1x1:avx512_core": 2}
    mixed = executed_by([line("convolution", "bf16"), line("inner_product", "f32")])
    assert mixed is not None and mixed.precision == "bf16+fp32"
    silent = executed_by([line("matmul", "f32", "attr-fpmath:bf16 attr-post-ops:sum")])
    assert silent is not None and silent.precision == "bf16", "types say f32, arithmetic is bf16"
    strict = executed_by([line("matmul", "f32", "attr-fpmath:strict")])
    assert strict is not None and strict.precision == "fp32"
    assert executed_by([info, "noise", ""]) is None


def test_onnxruntime_profile() -> None:
    def node(kind: str, dtype: str) -> dict[str, object]:
        arguments = {"op_name": kind, "provider": "CPUExecutionProvider", "input_type_shape": [{dtype: [1]}]}
        return {"cat": "Node", "name": "n_kernel_time", "args": arguments}

    found = executed_by_profile([node("FusedConv", "float"), node("Gemm", "float16"), {"cat": "Session", "name": "x"}])
    assert found is not None and found.precision == "fp16+fp32"
    assert found.operators == {"FusedConv CPUExecutionProvider": 1, "Gemm CPUExecutionProvider": 1}
    assert executed_by_profile([]) is None


@pytest.mark.cpu_sensitive
@pytest.mark.parametrize("runtime", ["paddle", "openvino", "cpp-openvino"])
def test_fp32_is_what_ran(real_bundle: Path, runtime: str) -> None:
    bundle = Bundle.open(real_bundle)
    _, tensors, reference = bundle.golden()
    with open_predictor(bundle, runtime, worker=True) as predictor:
        executed, got = predictor.execution_record(tensors[:1]), predictor.embed(tensors)
    assert executed is not None and executed.precision == "fp32"
    assert_told_truly(executed, "fp32", runtime, got, reference)


@pytest.mark.cpu_sensitive
@pytest.mark.parametrize("runtime", ["paddle", "openvino", "cpp-openvino"])
def test_what_is_told_of_bf16_is_what_ran(real_bundle: Path, runtime: str) -> None:
    """The record is no echo of the request: it says bf16 exactly where the embeddings show it."""
    assert run_in_bf16(Bundle.open(real_bundle), runtime) in ("bf16", "bf16+fp32", "fp32", None)


def test_paddle_without_onednn_says_so(real_bundle: Path) -> None:
    bundle = Bundle.open(real_bundle)
    with open_predictor(bundle, "paddle", RunOptions(onednn=False), worker=True) as predictor:
        executed = predictor.execution_record(bundle.golden()[1][:1])
    assert executed is not None and executed.source.startswith("oneDNN is off and logged nothing")


def test_reading_what_ran_leaves_standard_output_alone(real_bundle: Path, capfd: pytest.CaptureFixture[str]) -> None:
    bundle = Bundle.open(real_bundle)
    with open_predictor(bundle, "paddle") as predictor:
        predictor.execution_record(bundle.golden()[1][:1])
    os.write(1, b"after\n")
    printed = capfd.readouterr().out
    assert "after" in printed and "onednn_verbose" not in printed


def test_shared_memory_between_two_ends() -> None:
    host = SharedMemory()
    other = SharedMemory(os.dup(host.descriptor))
    rng = np.random.default_rng(0)
    for count in (3, 100_000, 5):  # grows once; what came before stays readable
        arrays = [
            rng.standard_normal((count, 2)).astype(np.float32),
            rng.integers(0, 9, count),
            np.empty((0, 4), np.int8),
        ]
        offsets = host.put(arrays)
        assert all(offset % 64 == 0 for offset in offsets)
        for array, offset in zip(arrays, offsets, strict=True):
            got = other.get(array.dtype, array.shape, offset)
            assert got.shape == array.shape and (got == array).all()
    host.close()
    assert (other.get(np.dtype(np.float32), (5, 2), 0) == arrays[0]).all()
    other.close()


def test_where_memory_files_may_not_be_had(
    real_bundle: Path, lite_ready: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "shared_memory", lambda: None)
    bundle = Bundle.open(real_bundle)
    _, tensors, reference = bundle.golden()
    for runtime in ("paddle", "onnxruntime", "openvino", "lite"):
        with open_predictor(bundle, runtime, worker=True) as predictor:
            assert np.abs(predictor.embed(tensors) - reference).max() <= 5e-5 * np.abs(reference).max()
        with pytest.raises(RuntimeFailed, match="its worker is closed"):
            predictor.embed(tensors)
        predictor.close()


def test_an_interpreter_that_is_not_there(fake_bundle: Make) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    bundle = fake_bundle()
    files = bundle.files(bundle.artifact("fake"))
    with pytest.raises(RuntimeUnavailable, match="its worker cannot start: /nonexistent"):
        client.WorkerPredictor("fake", files, bundle.spec.io, RunOptions(), "/nonexistent")
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_worker_leaves_no_descriptor_behind(fake_bundle: Make) -> None:
    bundle = fake_bundle()
    open_files = lambda: len(os.listdir("/proc/self/fd"))  # noqa: E731, PTH208
    before = open_files()
    for _ in range(3):
        with open_predictor(bundle, "fake", worker=True) as predictor:
            predictor.embed(bundle.golden()[1])
    assert open_files() == before
