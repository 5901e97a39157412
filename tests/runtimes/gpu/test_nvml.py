"""What the driver tells of a GPU, by a driver that is none."""

from __future__ import annotations

import os
import sys
import types

import pytest
from fake_cuda import NVMLError, fake_nvml

from edgerecall.runtimes.core.errors import RuntimeUnavailable
from edgerecall.runtimes.gpu.nvml import accelerator, first_visible, gpu_handle, gpu_names, require_gpu_for
from edgerecall.runtimes.predictor.interface import Accelerator


@pytest.fixture(autouse=True)
def all_visible(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the machine hides."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def test_tf32_is_of_ampere_and_newer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", fake_nvml())
    assert require_gpu_for("tf32") == ("A GPU", "8.7", "580.1")
    monkeypatch.setitem(sys.modules, "pynvml", fake_nvml(nvmlDeviceGetCudaComputeCapability=(7, 5)))
    assert require_gpu_for("fp32")[1] == "7.5"
    with pytest.raises(RuntimeUnavailable, match=r"the A GPU \(compute capability 7\.5\) has no tf32: ask for fp32"):
        require_gpu_for("tf32")


def test_the_first_visible() -> None:
    assert [first_visible(given) for given in (None, "2", "3,1", " 1 ")] == [0, 2, 3, 1]
    assert first_visible("GPU-12ab,1") == "GPU-12ab"
    for hidden in ("", "-1", "-1,0"):
        with pytest.raises(RuntimeUnavailable, match=f"CUDA_VISIBLE_DEVICES='{hidden}' hides every GPU: unset it"):
            first_visible(hidden)


def test_what_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = types.SimpleNamespace(pid=os.getpid(), usedGpuMemory=512_000_000)
    other = types.SimpleNamespace(pid=1, usedGpuMemory=9)
    monkeypatch.setitem(sys.modules, "pynvml", fake_nvml(nvmlDeviceGetComputeRunningProcesses=[other, mine]))
    assert gpu_names() == ("A GPU", "8.7", "580.1")
    assert accelerator(0.5) == Accelerator("A GPU (8.7)", "580.1", 512.0, 1300, 0.5)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-12ab")  # the beginning of its UUID is enough for CUDA
    with gpu_handle() as (_, handle):
        assert handle == "handle"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-ffff")
    with pytest.raises(RuntimeUnavailable, match="no NVIDIA GPU here: CUDA_VISIBLE_DEVICES names GPU-ffff"):
        gpu_names()


def test_what_is_not_told_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """An older driver raises what is no NVMLError."""
    unknown = {"nvmlDeviceGetClockInfo": NVMLError("x"), "nvmlDeviceGetComputeRunningProcesses": AttributeError("v3")}
    monkeypatch.setitem(sys.modules, "pynvml", fake_nvml(**unknown))
    assert accelerator() == Accelerator("A GPU (8.7)", "580.1", None, None, None)


def test_no_gpu_and_no_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", fake_nvml(nvmlInit=NVMLError("NVML Shared Library Not Found")))
    with pytest.raises(
        RuntimeUnavailable, match="no NVIDIA GPU here: NVML Shared Library Not Found; check 'nvidia-smi"
    ):
        gpu_names()
    monkeypatch.setitem(sys.modules, "pynvml", fake_nvml(nvmlDeviceGetHandleByIndex=NVMLError("Invalid Argument")))
    with pytest.raises(RuntimeUnavailable, match="no NVIDIA GPU here: Invalid Argument"):
        gpu_names()
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with pytest.raises(RuntimeUnavailable, match=r"needs nvidia-ml-py: run .pip install 'edgerecall\[gpu\]'"):
        gpu_names()
