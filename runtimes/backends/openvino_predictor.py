"""OpenVINO, CPU plugin."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from threading import Lock
from typing import Any

from numpy.typing import NDArray

from ..core.errors import RuntimeUnavailable
from ..core.versions import OPENVINO, needs
from ..predictor.backend import Backend
from ..predictor.interface import (
    COMPILED_SIZES,
    ExecutionRecord,
    InnerTensor,
    ModelIO,
    Predictor,
    RunOptions,
    RuntimeInfo,
    checked_output,
)
from ..predictor.precision import executed_name

BACKENDS = (
    Backend(
        name="openvino",
        predictor=f"{__name__}:OpenVinoPredictor",
        title="OpenVINO",
        package=OPENVINO,
        file_format="IR",
        quantisations=("fp32", "fp16", "int8"),
        executions=("fp32", "fp16", "bf16"),
        purpose="convert, run",
        order=20,
    ),
)
HINTS = {"fp32": "f32", "fp16": "f16", "bf16": "bf16"}
HEAVY_LAYERS = {"Convolution", "FullyConnected", "MatMul", "Deconvolution"}
MAKING = Lock()
CORES: list[Any] = []  # one at most
LAYER_FIELDS = ("layerType", "runtimePrecision", "primitiveType")


def executed_layers(compiled: Any) -> Counter[str]:
    """The heavy layers of the execution graph by kind, precision and kernel."""
    layers: Counter[str] = Counter()
    for operation in compiled.get_runtime_model().get_ordered_ops():
        info = {key: value.astype(str) for key, value in operation.get_rt_info().items() if key in LAYER_FIELDS}
        if info.get("layerType") in HEAVY_LAYERS and "runtimePrecision" in info:
            layers[f"{info['layerType']} {info['runtimePrecision'].lower()} {info.get('primitiveType', '')}"] += 1
    return layers


def shared_core() -> Any:
    """One for the whole process, that is never freed: each gives the thread that it is made in another alternate signal
    stack (on CPUs with AMX), and two that are freed in the order in which they were made leave it with freed memory, in
    which the next signal, Ctrl-C too, crashes.
    """
    import openvino

    with MAKING:
        if not CORES:
            CORES.append(openvino.Core())
    return CORES[0]


@dataclass
class Prepared:
    """A request for one batch size, its output tensor, and the array that its input tensor shares."""

    request: Any
    output: Any
    given: NDArray[Any] | None = None


class OpenVinoPredictor(Predictor):
    """files: `model` (`.xml`, its `.bin` beside it)."""

    compiles_per_batch = True
    feeds_inner = True

    def __init__(self, files: dict[str, str], io: ModelIO, options: RunOptions) -> None:
        try:
            import openvino
        except ImportError as error:
            raise RuntimeUnavailable(f"runtime 'openvino' {needs(OPENVINO, error=error)}") from error
        if options.precision not in HINTS:
            raise RuntimeUnavailable(f"runtime 'openvino' runs {', '.join(HINTS)}: ask for one of them")
        self.io, self._path, self._options = io, files["model"], options
        self._core, self._tensor = shared_core(), openvino.Tensor
        self._model = self._core.read_model(self._path)
        self._requests: dict[int, Prepared] = {}
        compiled = self._prepare(options.batch)
        layers = executed_layers(compiled)
        types = {name.split()[1] for name in layers}
        self._executed = ExecutionRecord(executed_name(types), "OpenVINO's execution graph", dict(layers))
        self.info = RuntimeInfo(
            runtime="openvino",
            version=openvino.__version__,
            precision=self._executed.precision,
            threads=int(compiled.get_property("INFERENCE_NUM_THREADS")),
            detail={"streams": int(compiled.get_property("NUM_STREAMS"))},
        )

    def _prepare(self, batch: int) -> Any:
        """Compiles the model for one batch size: with the size left open it runs a tenth slower."""
        model = self._model.clone()
        if model.inputs[0].partial_shape[0].is_dynamic:
            model.reshape([batch, *self.io.input_shape])
        compiled = self._core.compile_model(
            model,
            "CPU",
            {
                # Without the hint OpenVINO chooses bf16 by itself on CPUs that have it.
                "INFERENCE_PRECISION_HINT": HINTS[self._options.precision],
                "INFERENCE_NUM_THREADS": self._options.threads,
                "NUM_STREAMS": 1,
                "PERFORMANCE_HINT": "LATENCY",
                # It binds its threads to cores from the first on: several models would share one.
                **({"ENABLE_CPU_PINNING": False} if self._options.replicas > 1 else {}),
            },
        )
        if len(self._requests) == COMPILED_SIZES:  # the oldest goes, but not the size that it was loaded for
            del self._requests[next(size for size in self._requests if size != self._options.batch)]
        request = compiled.create_infer_request()
        self._requests[batch] = Prepared(request, request.get_output_tensor(0))
        return compiled

    def embed(self, batch: NDArray[Any]) -> NDArray[Any]:
        count = len(batch)
        if count not in self._requests:
            self._prepare(count)
        # Not `infer([batch])`, whose conversions cost as much again as all else here.
        prepared = self._requests[count]
        shared = batch if batch.flags.writeable else batch.copy()  # only such can be shared
        if prepared.given is not shared:
            prepared.request.set_input_tensor(self._tensor(shared, shared_memory=True))
            prepared.given = shared
        prepared.request.infer(share_outputs=True)
        # A view of the runtime's own memory, which the next inference overwrites.
        return checked_output("openvino", prepared.output.data.copy(), count, self.io)

    def runtime_object(self) -> Any:
        """The `InferRequest` of the batch size that it was opened for."""
        return self._requests[self._options.batch].request

    def execution_record(self, batch: NDArray[Any]) -> ExecutionRecord | None:
        return self._executed

    def inner_tensors(
        self, batch: NDArray[Any], given: Mapping[str, NDArray[Any]] | None = None
    ) -> list[InnerTensor] | None:
        from ..graphs.openvino_inner import inner_tensors

        return inner_tensors(self._core, self._path, batch, given or {})

    def parameters(self) -> dict[str, NDArray[Any]] | None:
        from ..graphs.openvino_inner import parameters

        return parameters(self._model)

    def close(self) -> None:
        self._requests.clear()
