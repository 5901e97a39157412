"""OpenVINO, CPU plugin."""

from __future__ import annotations

from collections import Counter
from typing import Any

from numpy.typing import NDArray

from .errors import RuntimeUnavailable
from .predictor import ModelIO, Predictor, RunOptions, RuntimeInfo, checked_output

HINTS = {"fp32": "f32", "fp16": "f16", "bf16": "bf16"}
HEAVY_LAYERS = {"Convolution", "FullyConnected", "MatMul", "Deconvolution"}


def executed_precision(compiled: Any) -> tuple[str, dict[str, int]]:
    """What the execution graph says: the precision of the heavy layers, and how many layers have which."""
    counts: Counter[str] = Counter()
    for operation in compiled.get_runtime_model().get_ordered_ops():
        info = operation.get_rt_info()
        layer = info["layerType"].astype(str) if "layerType" in info else ""
        if layer in HEAVY_LAYERS and "runtimePrecision" in info:
            counts[info["runtimePrecision"].astype(str).lower()] += 1
    names = {hint: name for name, hint in HINTS.items()}
    executed = sorted({names.get(precision, precision) for precision in counts})
    return "+".join(executed) or "unknown", dict(counts)


class OpenVinoPredictor(Predictor):
    """files: `model` (`.xml`, its `.bin` beside it)."""

    package = "openvino"

    def __init__(self, files: dict[str, str], io: ModelIO, options: RunOptions) -> None:
        try:
            import openvino
        except ImportError as error:
            raise RuntimeUnavailable(
                "runtime 'openvino' needs openvino: run 'pip install edgerecall[openvino]'"
            ) from error
        core = openvino.Core()
        self.io = io
        # Without the hint OpenVINO chooses bf16 by itself on CPUs that have it.
        self._compiled = core.compile_model(
            files["model"],
            "CPU",
            {
                "INFERENCE_PRECISION_HINT": HINTS[options.precision],
                "INFERENCE_NUM_THREADS": options.threads,
                "NUM_STREAMS": 1,
                "PERFORMANCE_HINT": "LATENCY",
            },
        )
        self._request = self._compiled.create_infer_request()
        precision, layers = executed_precision(self._compiled)
        self.info = RuntimeInfo(
            runtime="openvino",
            version=openvino.__version__,
            precision=precision,
            threads=int(self._compiled.get_property("INFERENCE_NUM_THREADS")),
            detail={"layers_by_precision": layers, "streams": int(self._compiled.get_property("NUM_STREAMS"))},
        )

    def embed(self, batch: NDArray[Any]) -> NDArray[Any]:
        results = self._request.infer([batch], share_inputs=True)
        return checked_output("openvino", results[0], len(batch), self.io)

    def close(self) -> None:
        del self._request, self._compiled
