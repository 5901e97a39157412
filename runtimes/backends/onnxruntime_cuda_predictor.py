"""ONNX Runtime, CUDA execution provider, on an NVIDIA GPU.

Left to itself it computes float32 layers in TF32, and on the CPU where its libraries are missing, and says neither.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from ..core.errors import RuntimeUnavailable
from ..core.text import one_line
from ..core.versions import Package
from ..gpu.nvml import accelerator, require_gpu_for
from ..gpu.onnx_backend import onnx_on_gpu
from ..predictor.interface import Accelerator, ExecutionRecord, ModelIO, RunOptions
from .onnxruntime_predictor import HEAVY, OnnxRuntimePredictor

NAME, CUDA = "onnxruntime-cuda", "CUDAExecutionProvider"
PACKAGE = Package("onnxruntime", "onnxruntime-gpu", "onnx-gpu")
LIBRARY = "libonnxruntime_providers_cuda.so"
BACKENDS = (onnx_on_gpu(NAME, f"{__name__}:OnnxRuntimeCudaPredictor", "ONNX Runtime, on a GPU", PACKAGE, 15),)


class OnnxRuntimeCudaPredictor(OnnxRuntimePredictor):
    """files: `model` (`.onnx`). A batch of a new size is tried out first: cuDNN looks for its fastest convolutions."""

    compiles_per_batch = True
    feeds_inner = False
    runtime, device, package = NAME, "gpu", PACKAGE

    def __init__(self, files: dict[str, str], io: ModelIO, options: RunOptions) -> None:
        super().__init__(files, io, options)
        if CUDA not in self._session.get_providers():
            raise RuntimeUnavailable(f"runtime '{NAME}': ONNX Runtime fell back to the CPU: {fallback_reason()}")
        used = self._session.get_provider_options()[CUDA]
        self.info.detail.update(gpu="{} ({})".format(*self._gpu), use_tf32=used.get("use_tf32", "unknown"))

    def _check(self, onnxruntime: Any) -> None:
        if self._options.precision not in ("fp32", "tf32"):
            raise RuntimeUnavailable(f"runtime '{NAME}' runs the graph's own types: ask for fp32 or tf32")
        if CUDA not in onnxruntime.get_available_providers():
            raise RuntimeUnavailable(
                f"runtime '{NAME}' needs onnxruntime-gpu, and this onnxruntime is a CPU build:"
                " run 'pip uninstall onnxruntime', then 'pip install --force-reinstall --no-deps onnxruntime-gpu'"
            )
        self._gpu = require_gpu_for(self._options.precision)  # without a GPU the session would fall back
        if hasattr(onnxruntime, "preload_dlls"):
            with contextlib.redirect_stdout(io.StringIO()):  # it prints what it does not find
                onnxruntime.preload_dlls()  # CUDA's and cuDNN's libraries from their wheels, where they are

    def _providers(self) -> list[Any]:
        return [(CUDA, {"device_id": 0, "use_tf32": int(self._options.precision == "tf32")}), "CPUExecutionProvider"]

    def _named(self, precision: str) -> str:
        """TF32 is nothing that the graph says: what the session was opened with."""
        return precision.replace("fp32", self._options.precision)

    def execution_record(self, batch: NDArray[Any]) -> ExecutionRecord | None:
        """Also where: heavy layers left to the CPU make its precision "fp32+cpu"."""
        told = super().execution_record(batch)
        if told is None:
            return None
        left = [
            one for one in told.operators if one.endswith("CPUExecutionProvider") and any(kind in one for kind in HEAVY)
        ]
        return ExecutionRecord(f"{told.precision}+cpu", told.source, told.operators) if left else told

    def inner_tensors(self, batch: NDArray[Any], given: Any = None) -> None:
        return None

    def accelerator(self, batch: NDArray[Any]) -> Accelerator | None:
        self.embed(batch)
        return accelerator()


def fallback_reason() -> str:
    """Why the CUDA provider does not load: the loader's own words."""
    import onnxruntime

    try:
        ctypes.CDLL(str(Path(onnxruntime.__file__).parent / "capi" / LIBRARY))
    except OSError as error:
        return (
            f"{one_line(error)}; install the CUDA and cuDNN that this version is built for:"
            " pip install 'onnxruntime-gpu[cuda,cudnn]'"
        )
    return "the GPU is not one that it is built for; see onnxruntime.ai, 'CUDA Execution Provider'"
