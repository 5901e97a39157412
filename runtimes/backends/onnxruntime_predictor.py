"""ONNX Runtime, CPU execution provider."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from ..core.errors import RuntimeFailed, RuntimeUnavailable
from ..core.text import one_line
from ..core.versions import ONNXRUNTIME, needs
from ..predictor.backend import Backend
from ..predictor.interface import (
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
        name="onnxruntime",
        predictor=f"{__name__}:OnnxRuntimePredictor",
        title="ONNX Runtime",
        package=ONNXRUNTIME,
        file_format="ONNX, opset 11 or newer",
        quantisations=("fp32", "fp16", "int8"),
        order=10,
    ),
)
HEAVY = ("Conv", "Gemm", "MatMul")


class OnnxRuntimePredictor(Predictor):
    """files: `model` (`.onnx`)."""

    feeds_inner = True
    runtime, device, package = "onnxruntime", "cpu", ONNXRUNTIME

    def __init__(self, files: dict[str, str], io: ModelIO, options: RunOptions) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise RuntimeUnavailable(f"runtime '{self.runtime}' {needs(self.package, error=error)}") from error
        self.io, self._model, self._options = io, files["model"], options
        self._check(onnxruntime)
        onnxruntime.set_default_logger_severity(3)
        self._session = self._open()
        graph_input = self._session.get_inputs()[0]
        self._input_name = graph_input.name
        self.info = RuntimeInfo(
            runtime=self.runtime,
            version=onnxruntime.__version__,
            precision=self._named(executed_name([graph_input.type[len("tensor(") : -1]])),
            threads=self._session.get_session_options().intra_op_num_threads,
            device=self.device,
            detail={"providers": self._session.get_providers()},
        )

    def _check(self, onnxruntime: Any) -> None:
        """Raises RuntimeUnavailable where the installed package, or this machine, cannot do what is asked."""
        if self._options.precision != "fp32":
            raise RuntimeUnavailable("runtime 'onnxruntime' runs the graph's own types (fp32) on CPU: ask for fp32")

    def _providers(self) -> list[Any]:
        """Execution providers, as ONNX Runtime takes them, with their options."""
        return ["CPUExecutionProvider"]

    def _named(self, precision: str) -> str:
        """What really runs where the graph's types are `precision`."""
        return precision

    def _open(self, profile: str | None = None, model: bytes | None = None) -> Any:
        """A session. profile: where its profile goes, as the beginning of a file's path. model: instead of the file."""
        import onnxruntime

        session_options = onnxruntime.SessionOptions()
        session_options.intra_op_num_threads = self._options.threads
        session_options.inter_op_num_threads = 1
        levels = onnxruntime.GraphOptimizationLevel
        session_options.graph_optimization_level = (
            levels.ORT_ENABLE_ALL if self._options.graph_optimization else levels.ORT_DISABLE_ALL
        )
        session_options.log_severity_level = 3
        if profile is not None:
            session_options.enable_profiling = True
            session_options.profile_file_prefix = profile
        # Without its own way out: where a provider fails it goes on with the CPU, in mid-run too.
        return onnxruntime.InferenceSession(
            model or self._model, session_options, providers=self._providers(), enable_fallback=0
        )

    def embed(self, batch: NDArray[Any]) -> NDArray[Any]:
        try:
            outputs = self._session.run(None, {self._input_name: batch})
        except Exception as error:  # its own types have no common one
            raise RuntimeFailed(f"{self.runtime}: the inference failed: {one_line(error)}") from error
        return checked_output(self.runtime, outputs[0], len(batch), self.io)

    def replicate(self) -> Predictor | None:
        return self  # a session takes calls from several threads, and with one thread of its own runs on theirs

    def runtime_object(self) -> Any:
        """The `InferenceSession`."""
        return self._session

    def execution_record(self, batch: NDArray[Any]) -> ExecutionRecord | None:
        with tempfile.TemporaryDirectory() as folder:
            session = self._open(str(Path(folder) / "profile"))
            session.run(None, {self._input_name: batch})
            told = executed_by(json.loads(Path(session.end_profiling()).read_text()))
        return told and replace(told, precision=self._named(told.precision))

    def inner_tensors(
        self, batch: NDArray[Any], given: Mapping[str, NDArray[Any]] | None = None
    ) -> list[InnerTensor] | None:
        from ..graphs.onnx_inner import inner_tensors

        return inner_tensors(self._model, lambda model: self._open(model=model), {self._input_name: batch}, given or {})

    def parameters(self) -> dict[str, NDArray[Any]] | None:
        from ..graphs.onnx_inner import parameters

        try:
            return parameters(self._model)
        except RuntimeUnavailable:  # the package onnx is not there, and the model runs without it
            return None


def executed_by(events: list[dict[str, Any]]) -> ExecutionRecord | None:
    """What a session's profile says of the nodes of the optimised graph; None when it names none."""
    operators: Counter[str] = Counter()
    types = set()
    for event in events:
        if event.get("cat") != "Node" or not event["name"].endswith("_kernel_time"):
            continue
        arguments = event["args"]
        kind = arguments["op_name"]
        operators[f"{kind} {arguments['provider']}"] += 1
        if any(heavy in kind for heavy in HEAVY):
            types.add(next(iter(arguments["input_type_shape"][0])))
    if not operators:
        return None
    return ExecutionRecord(executed_name(types), "ONNX Runtime's profile", dict(operators))
