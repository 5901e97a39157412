"""ONNX Runtime, CPU execution provider."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from .errors import RuntimeUnavailable
from .predictor import ModelIO, Predictor, RunOptions, RuntimeInfo, checked_output

TYPE_NAMES = {"tensor(float)": "fp32", "tensor(float16)": "fp16", "tensor(bfloat16)": "bf16"}


class OnnxRuntimePredictor(Predictor):
    """files: `model` (`.onnx`)."""

    package = "onnxruntime"

    def __init__(self, files: dict[str, str], io: ModelIO, options: RunOptions) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise RuntimeUnavailable(
                "runtime 'onnxruntime' needs onnxruntime: run 'pip install edgerecall[onnx]'"
            ) from error
        if options.precision != "fp32":
            raise RuntimeUnavailable("runtime 'onnxruntime' runs the graph's own types (fp32) on CPU: ask for fp32")
        onnxruntime.set_default_logger_severity(3)
        session_options = onnxruntime.SessionOptions()
        session_options.intra_op_num_threads = options.threads
        session_options.inter_op_num_threads = 1
        levels = onnxruntime.GraphOptimizationLevel
        session_options.graph_optimization_level = (
            levels.ORT_ENABLE_ALL if options.graph_optimization else levels.ORT_DISABLE_ALL
        )
        session_options.log_severity_level = 3
        self.io = io
        self._session = onnxruntime.InferenceSession(
            files["model"], session_options, providers=["CPUExecutionProvider"]
        )
        graph_input = self._session.get_inputs()[0]
        self._input_name = graph_input.name
        self.info = RuntimeInfo(
            runtime="onnxruntime",
            version=onnxruntime.__version__,
            precision=TYPE_NAMES.get(graph_input.type, graph_input.type),
            threads=self._session.get_session_options().intra_op_num_threads,
            detail={"providers": self._session.get_providers()},
        )

    def embed(self, batch: NDArray[Any]) -> NDArray[Any]:
        outputs = self._session.run(None, {self._input_name: batch})
        return checked_output("onnxruntime", outputs[0], len(batch), self.io)
