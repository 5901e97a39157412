"""ncnn, by its own Python package. It takes one image at a time."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.errors import RuntimeFailed, RuntimeUnavailable
from ..core.versions import Package, needs
from ..graphs.ncnn_model import read_layers
from ..graphs.ncnn_network import open_net
from ..predictor.backend import Backend
from ..predictor.interface import InnerTensor, ModelIO, Predictor, RunOptions, RuntimeInfo, checked_output
from ..predictor.precision import executed_name

PACKAGE = Package("ncnn", "ncnn", "ncnn")
BACKENDS = (
    Backend(
        name="ncnn",
        predictor=f"{__name__}:NcnnPredictor",
        title="ncnn",
        package=PACKAGE,
        file_format="`.param` and `.bin`",
        executions=("fp32", "bf16"),
        quantisations=("fp32", "fp16", "int8"),
        order=40,
    ),
)


class NcnnPredictor(Predictor):
    """files: `model` (`.param`), `weights` (`.bin`)."""

    concurrent = False  # its OpenMP threads are one pool a process
    feeds_inner = True

    def __init__(self, files: dict[str, str], io: ModelIO, options: RunOptions) -> None:
        try:
            import ncnn
        except ImportError as error:
            raise RuntimeUnavailable(f"runtime 'ncnn' {needs(PACKAGE, error=error)}") from error
        if options.precision not in ("fp32", "bf16"):
            raise RuntimeUnavailable("runtime 'ncnn' on this machine runs fp32 and bf16: ask for one of them")
        self.io, self._mat, self._param = io, ncnn.Mat, Path(files["model"])
        bf16, optimised = options.precision == "bf16", options.graph_optimization
        self._net = open_net(files["model"], files["weights"], options.threads, bf16, optimised)
        self._ends = (self._net.input_names()[0], self._net.output_names()[0])
        # It tells nothing of what it computes; layers with int8 weights it refuses, or computes so.
        int8 = ["int8"] if any(layer.is_int8 for layer in read_layers(self._param)) else []
        precision = executed_name([options.precision, *int8])
        detail = {"input_name": self._ends[0]}
        self.info = RuntimeInfo("ncnn", ncnn.__version__, precision, self._net.opt.num_threads, detail=detail)

    def embed(self, batch: NDArray[Any]) -> NDArray[Any]:
        rows = []
        for image in batch:
            with self._net.create_extractor() as extractor:
                extractor.input(self._ends[0], self._mat(image))
                failed, output = extractor.extract(self._ends[1])
            if failed:
                raise RuntimeFailed(f"ncnn: the inference failed ({failed})")
            rows.append(np.array(output).reshape(-1))
        return checked_output("ncnn", np.stack(rows), len(batch), self.io)

    def inner_tensors(
        self, batch: NDArray[Any], given: Mapping[str, NDArray[Any]] | None = None
    ) -> list[InnerTensor] | None:
        from ..graphs.ncnn_inner import inner_tensors

        return inner_tensors(self._net, self._mat, self._param, batch, given or {})

    def close(self) -> None:
        self._net.clear()
