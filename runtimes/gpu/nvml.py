"""What the NVIDIA driver tells of a GPU (NVML, by the package nvidia-ml-py)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..core.errors import RuntimeUnavailable
from ..core.versions import Package, needs
from ..predictor.interface import Accelerator

PACKAGE = Package("pynvml", "nvidia-ml-py", "gpu", shown=False)
NO_GPU = "no NVIDIA GPU here: {}; check 'nvidia-smi'"


def first_visible(variable: str | None) -> int | str:
    """The GPU that CUDA counts first, as NVML names it: its index or its UUID. variable: CUDA_VISIBLE_DEVICES.
    RuntimeUnavailable where it hides them all.

    CUDA orders GPUs by speed unless CUDA_DEVICE_ORDER says otherwise, NVML by bus: on a machine of several kinds set
    CUDA_DEVICE_ORDER=PCI_BUS_ID.
    """
    if variable is None:
        return 0
    first = variable.split(",")[0].strip()
    if first in ("", "-1"):
        raise RuntimeUnavailable(f"CUDA_VISIBLE_DEVICES='{variable}' hides every GPU: unset it")
    return int(first) if first.isdigit() else first


@contextmanager
def gpu_handle() -> Iterator[tuple[Any, Any]]:
    """The module pynvml, and its handle of the GPU that CUDA counts first. RuntimeUnavailable where there is none."""
    try:
        import pynvml
    except ImportError as error:
        raise RuntimeUnavailable(f"what the GPU does {needs(PACKAGE, error=error)}") from error
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        raise RuntimeUnavailable(NO_GPU.format(error)) from error
    try:
        yield pynvml, find_handle(pynvml, first_visible(os.environ.get("CUDA_VISIBLE_DEVICES")))
    except pynvml.NVMLError as error:
        raise RuntimeUnavailable(NO_GPU.format(error)) from error
    finally:
        pynvml.nvmlShutdown()


def find_handle(nvml: Any, chosen: int | str) -> Any:
    """The handle of a GPU by its index, or by the beginning of its UUID, as CUDA takes it."""
    if isinstance(chosen, int):
        return nvml.nvmlDeviceGetHandleByIndex(chosen)
    for index in range(nvml.nvmlDeviceGetCount()):
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
        if text(nvml.nvmlDeviceGetUUID(handle)).startswith(chosen):
            return handle
    raise RuntimeUnavailable(NO_GPU.format(f"CUDA_VISIBLE_DEVICES names {chosen}"))


def require_gpu_for(precision: str) -> tuple[str, str, str]:
    """`gpu_names`. RuntimeUnavailable for tf32 on a GPU before Ampere, which computes float32 and does not say so."""
    name, capability, driver = gpu_names()
    if precision == "tf32" and int(capability.split(".")[0]) < 8:
        raise RuntimeUnavailable(f"the {name} (compute capability {capability}) has no tf32: ask for fp32")
    return name, capability, driver


def gpu_names() -> tuple[str, str, str]:
    """The GPU's name, its compute capability such as "8.7", the driver's version. RuntimeUnavailable without one."""
    with gpu_handle() as (nvml, handle):
        return names_of(nvml, handle)


def names_of(nvml: Any, handle: Any) -> tuple[str, str, str]:
    """`gpu_names` of one that is open."""
    capability = ".".join(map(str, nvml.nvmlDeviceGetCudaComputeCapability(handle)))
    return text(nvml.nvmlDeviceGetName(handle)), capability, text(nvml.nvmlSystemGetDriverVersion())


def accelerator(compute_ms: float | None = None) -> Accelerator:
    """The GPU now, and this process on it; what the driver does not tell is None, as this process's memory in a
    container that has process numbers of its own. compute_ms: to be told with it.
    """
    with gpu_handle() as (nvml, handle):
        name, capability, driver = names_of(nvml, handle)

        def told(ask: Any, *arguments: Any) -> Any:
            try:
                return ask(handle, *arguments)
            except Exception:  # not on every GPU, driver, nor inside every container, and of several types
                return None

        processes = told(nvml.nvmlDeviceGetComputeRunningProcesses) or []
        held = next((one.usedGpuMemory for one in processes if one.pid == os.getpid()), None)
        return Accelerator(
            name=f"{name} ({capability})",
            driver=driver,
            memory_mb=None if held is None else held / 1e6,
            clock_mhz=told(nvml.nvmlDeviceGetClockInfo, nvml.NVML_CLOCK_SM),
            compute_ms=compute_ms,
        )


def text(value: str | bytes) -> str:
    """Older bindings give bytes."""
    return value.decode() if isinstance(value, bytes) else value
