"""TensorRT and TensorRT for RTX, on an NVIDIA GPU, from the ONNX artifact."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.errors import RuntimeFailed, RuntimeUnavailable
from ..core.files import sha256
from ..core.versions import Package, needs
from ..gpu.cuda import Stream
from ..gpu.nvml import accelerator, require_gpu_for
from ..gpu.onnx_backend import onnx_on_gpu
from ..gpu.tensorrt_engine import FROM_CACHE, EngineKey, cached_engine, engine_folder, log_of, reason
from ..predictor.interface import Accelerator, ModelIO, Predictor, RunOptions, RuntimeInfo, checked_output

TENSORRT = Package("tensorrt", "tensorrt", "tensorrt")
RTX = Package("tensorrt_rtx", "tensorrt-rtx-cu13", "tensorrt-rtx", others=("tensorrt-rtx-cu12",))
TIMED = 20  # inferences, for the GPU's own time
BUILT = "; its engine is built on the device"
BACKENDS = (
    onnx_on_gpu("tensorrt", f"{__name__}:TensorRtPredictor", "TensorRT", TENSORRT, 60, BUILT),
    onnx_on_gpu("tensorrt-rtx", f"{__name__}:TensorRtRtxPredictor", "TensorRT for RTX", RTX, 61, BUILT),
)


@dataclass(frozen=True)
class Engine:
    """A loaded engine for 1 to `most` images, its execution context, and the names of its ends."""

    most: int
    engine: Any
    context: Any
    given: str
    made: str


class TensorRtPredictor(Predictor):
    """files: `model` (`.onnx`). A batch larger than any before costs another engine, beside the first."""

    runtime, package = "tensorrt", TENSORRT

    def __init__(self, files: dict[str, str], io: ModelIO, options: RunOptions) -> None:
        try:
            self._library = importlib.import_module(self.package.module)
        except ImportError as error:
            raise RuntimeUnavailable(f"runtime '{self.runtime}' {needs(self.package, error=error)}") from error
        if options.precision not in ("fp32", "tf32"):
            raise RuntimeUnavailable(f"runtime '{self.runtime}' runs the graph's own types: ask for fp32 or tf32")
        self._names = require_gpu_for(options.precision)
        self.io, self._model, self._options = io, Path(files["model"]), options
        self._digest = sha256(self._model)
        self._engines: list[Engine] = []
        self._stream = Stream()
        try:
            self._log = log_of(self._library)
            self._runtime = self._library.Runtime(self._log)
            self.info = self._load(options.batch)
        except BaseException:
            self._stream.close()
            raise

    def _load(self, most: int) -> RuntimeInfo:
        """Gets an engine for at most so many images ready, and tells of it."""
        name, capability, driver = self._names
        key = EngineKey(
            library=self._library.__name__,
            version=self._library.__version__,
            gpu=name,
            capability=capability,
            driver=driver,
            model_sha256=self._digest,
            shape=self.io.input_shape,
            most=most,
            tf32=self._options.precision == "tf32",
        )
        content, origin = cached_engine(self._library, self._model, key)
        engine = self._runtime.deserialize_cuda_engine(content)
        if engine is None and origin == FROM_CACHE:  # torn, or of a library that has changed: once more
            (engine_folder() / key.name).unlink(missing_ok=True)
            content, origin = cached_engine(self._library, self._model, key)
            engine = self._runtime.deserialize_cuda_engine(content)
        if engine is None:
            (engine_folder() / key.name).unlink(missing_ok=True)
        context = engine and engine.create_execution_context()
        if context is None:
            raise RuntimeFailed(f"{self.runtime} cannot load its engine on this {name} ({capability}): {self._why()}")
        ends = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        is_input = self._library.TensorIOMode.INPUT
        ends.sort(key=lambda end: bool(engine.get_tensor_mode(end) != is_input))
        self._engines = sorted([*self._engines, Engine(most, engine, context, *ends)], key=lambda one: one.most)
        detail = {"engine": origin, "engine_mb": len(content) / 1e6, "gpu": f"{name} ({capability})"}
        version, precision = self._library.__version__, self._options.precision
        return RuntimeInfo(self.runtime, version, precision, None, device="gpu", detail=detail)

    def _why(self) -> str:
        return reason(self._log, "no reason given")

    def _run(self, batch: NDArray[Any]) -> tuple[int, ...]:
        """Sends a batch there and asks for its embeddings, whose shape comes back."""
        if len(batch) > self._engines[-1].most:
            self._load(len(batch))
        one, stream = next(one for one in self._engines if one.most >= len(batch)), self._stream
        context = one.context
        if not context.set_input_shape(one.given, batch.shape):
            raise RuntimeFailed(f"{self.runtime}: a batch of shape {batch.shape} is refused: {self._why()}")
        shape = tuple(context.get_tensor_shape(one.made))
        context.set_tensor_address(one.given, stream.send("input", batch))
        context.set_tensor_address(one.made, stream.buffer("output", 4 * int(np.prod(shape))))
        stream.mark(0)
        if not context.execute_async_v3(stream.handle):
            raise RuntimeFailed(f"{self.runtime}: the inference failed: {self._why()}")
        stream.mark(1)
        return shape

    def embed(self, batch: NDArray[Any]) -> NDArray[Any]:
        shape = self._run(batch)
        return checked_output(self.runtime, self._stream.receive("output", shape), len(batch), self.io)

    def accelerator(self, batch: NDArray[Any]) -> Accelerator | None:
        times = []
        for _ in range(TIMED):
            self._run(batch)
            times.append(self._stream.marked_ms())
        return accelerator(float(np.median(times)))

    def runtime_object(self) -> Any:
        """The `ICudaEngine` that it was opened with."""
        return next(one.engine for one in self._engines if one.most >= self._options.batch)

    def close(self) -> None:
        self._engines.clear()
        self._runtime = None
        self._stream.close()


class TensorRtRtxPredictor(TensorRtPredictor):
    """The same, by the library for RTX GPUs: it compiles for the GPU at hand when the engine is loaded."""

    runtime, package = "tensorrt-rtx", RTX
