"""Paddle Inference."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.errors import RuntimeUnavailable
from ..core.versions import PADDLE, needs
from ..predictor.backend import Backend
from ..predictor.interface import (
    ExecutionRecord,
    InnerTensor,
    ModelIO,
    Predictor,
    RunOptions,
    RuntimeInfo,
    checked_output,
    is_activation,
)
from ..predictor.onednn_log import executed_by, recorded

BACKENDS = (
    Backend(
        name="paddle",
        predictor=f"{__name__}:PaddlePredictor",
        title="Paddle Inference",
        package=PADDLE,
        imports="paddle.inference",
        file_format="PIR `inference.json`, or `.pdmodel`",
        executions=("fp32", "bf16"),
        devices=("cpu", "gpu"),
        purpose="train, convert, run",
        order=0,
    ),
)
# Running means and variances, which a batch norm gives beside its output.
PARAMETER = re.compile(r"\.[wb]_\d+$")


class PaddlePredictor(Predictor):
    """files: `model` (`inference.json` or `.pdmodel`) and `params` (`.pdiparams`)."""

    concurrent = False  # it keeps Python's lock while it runs

    def __init__(self, files: dict[str, str], io: ModelIO, options: RunOptions) -> None:
        try:
            import paddle
            from paddle import inference
        except ImportError as error:
            raise RuntimeUnavailable(f"runtime 'paddle' {needs(PADDLE, error=error)}") from error
        if options.device == "gpu" and not paddle.is_compiled_with_cuda():
            raise RuntimeUnavailable("use_gpu: this Paddle is a CPU build: install paddlepaddle-gpu, or use the CPU")
        if options.precision not in ("fp32", "bf16"):
            raise RuntimeUnavailable(f"runtime 'paddle' does not run {options.precision} here: ask for fp32 or bf16")
        if options.precision == "bf16" and not (options.onednn and options.device == "cpu"):
            raise RuntimeUnavailable(
                "runtime 'paddle' runs bf16 by oneDNN on CPU only: leave oneDNN on, or ask for fp32"
            )
        # Both paths are given: a directory and a prefix resolve differently between Paddle versions.
        config = inference.Config(files["model"], files["params"])
        config.disable_glog_info()
        if options.device == "gpu":
            config.enable_use_gpu(options.gpu_memory_mb, 0)
        else:
            config.disable_gpu()
        config.set_cpu_math_library_num_threads(options.threads)
        config.switch_ir_optim(options.graph_optimization)
        if options.onednn and options.device == "cpu":
            config.enable_mkldnn()
        else:
            config.disable_mkldnn()  # not calling enable_mkldnn() would leave it on: it is the default
        if options.precision == "bf16":
            config.enable_mkldnn_bfloat16()
        self.io, self._files = io, files
        self._predictor = inference.create_predictor(config)
        self._input = self._predictor.get_input_handle(self._predictor.get_input_names()[0])
        self._output = self._predictor.get_output_handle(self._predictor.get_output_names()[0])
        self.info = RuntimeInfo(
            runtime="paddle",
            version=paddle.__version__,
            # As configured; `execution_record` reads what runs.
            precision="bf16" if options.precision == "bf16" else "fp32",
            threads=config.cpu_math_library_num_threads(),
            device="gpu" if config.use_gpu() else "cpu",
            detail={
                "onednn": config.mkldnn_enabled(),
                "graph_optimization": config.ir_optim(),
                "input_name": self._predictor.get_input_names()[0],
            },
        )

    def embed(self, batch: NDArray[Any]) -> NDArray[Any]:
        self._input.copy_from_cpu(batch)
        self._predictor.run()
        return checked_output("paddle", self._output.copy_to_cpu(), len(batch), self.io)

    def runtime_object(self) -> Any:
        """The `paddle.inference.Predictor`."""
        return self._predictor

    def execution_record(self, batch: NDArray[Any]) -> ExecutionRecord | None:
        import paddle

        libraries = sorted((Path(paddle.__file__).parent / "libs").glob("libdnnl.so*"))
        if not libraries or self.info.device != "cpu":
            return None
        found = executed_by(recorded(libraries[0], lambda: self.embed(batch)))
        if found is None and not self.info.detail["onednn"]:
            return ExecutionRecord("fp32", "oneDNN is off and logged nothing; Paddle's own CPU kernels")
        return found

    def inner_tensors(
        self, batch: NDArray[Any], given: Mapping[str, NDArray[Any]] | None = None
    ) -> list[InnerTensor] | None:
        from paddle import inference

        config = inference.Config(self._files["model"], self._files["params"])
        config.disable_gpu()
        config.disable_glog_info()
        config.disable_mkldnn()
        config.set_cpu_math_library_num_threads(1)
        config.switch_ir_optim(False)
        predictor = inference.create_predictor(config)
        found: list[InnerTensor] = []

        def keep(kind: str, name: str, tensor: Any) -> None:
            with contextlib.suppress(Exception):  # side outputs that hold nothing; none may pass through the runtime
                values = np.array(tensor)  # now: operators that work in place use the buffer again
                if is_activation(values) and not PARAMETER.search(name):
                    operator = kind.replace("pd_op.", "")
                    # Values of the newer IR have no names of their own.
                    shown = operator if "_inner_var_" in name else name
                    found.append(InnerTensor(shown, operator.split(":")[0].rstrip("_"), values))

        predictor.register_output_hook(keep)
        handle = predictor.get_input_handle(predictor.get_input_names()[0])
        handle.copy_from_cpu(batch)
        predictor.run()
        return found

    def parameters(self) -> dict[str, NDArray[Any]] | None:
        from .paddle_model import read_parameters

        return read_parameters(Path(self._files["model"]), Path(self._files["params"]))
